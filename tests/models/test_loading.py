import json
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from ftkit.errors import ModelError
from ftkit.models import embedded, known_names, load, load_tokenizer, lora_targets


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def adapter(tmp_path):
    model, _ = load("tiny-qwen3", device="cpu", verbose=False)
    targets = lora_targets(model)
    model = get_peft_model(model, LoraConfig(r=2, target_modules=targets.target_modules))
    model.peft_config["default"].base_model_name_or_path = "tiny-qwen3"
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    return tmp_path


def rewrite(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_package_and_its_names_load_no_torch():
    code = (
        "import sys, ftkit.models as models; models.known_names(); models.FAMILIES; models.load\n"
        "assert not {'torch', 'transformers', 'peft'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("call", [load, load_tokenizer])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiny-lama3", ["'tiny-lama3'", "'tiny-llama3'"]),
        ("tiny-qwen4", ["'tiny-qwen4'", "'tiny-qwen3'"]),
        ("embeded", ["'embeded'", "'embedded'", "HF_HUB_OFFLINE"]),
        ("./nowhere", ["'./nowhere'", "nor a folder"]),
        ("some-org/some-model", ["'some-org/some-model'", "nor a folder", "not in the cache"]),
        ("", ["''", "nor a folder"]),
    ],
)
def test_a_name_that_does_not_exist_is_told_in_one_sentence(call, name, said):
    with pytest.raises(ModelError) as error:
        call(name)
    assert all(part in str(error.value) for part in said)
    assert error.value.__cause__ is None and (error.value.__suppress_context__ or error.value.__context__ is None)


def test_a_cached_hub_id_is_a_near_match(tmp_path, monkeypatch):
    from huggingface_hub import constants

    (tmp_path / "models--some-org--some-model").mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="Did you mean 'some-org/some-model'"):
        load("some-org/some-modle")


@pytest.mark.parametrize(
    ("outcome", "said"),
    [(False, "no such model"), (OSError("no route"), "cannot be reached"), ("gated", "accept its terms")],
)
def test_what_the_hub_says_is_passed_on(monkeypatch, outcome, said):
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError

    def file_exists(repo_id, filename):
        if outcome == "gated":
            raise GatedRepoError.__new__(GatedRepoError)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub, "file_exists", file_exists)
    with pytest.raises(ModelError, match=said):
        load("some-org/some-model")


def test_a_folder_without_a_model_or_a_tokenizer_says_so(tmp_path):
    for call in (load, load_tokenizer):
        with pytest.raises(ModelError, match=f"{tmp_path} holds no config.json"):
            call(str(tmp_path))
    load("tiny-qwen3", device="cpu", verbose=False)[0].save_pretrained(tmp_path)
    for call in (load, load_tokenizer):
        with pytest.raises(ModelError, match=f"{tmp_path} holds no tokenizer"):
            call(str(tmp_path))


def test_only_safetensors_are_read(tmp_path):
    model, tokenizer = load("tiny-qwen3", device="cpu", verbose=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load(str(tmp_path), device="cpu")


@pytest.mark.parametrize("name", ["tiny-qwen3", "some-org/some-model"])
def test_a_misspelt_option_is_refused_before_anything_is_read(name):
    with pytest.raises(ModelError, match="dtype='fp8'"):
        load(name, dtype="fp8")


def test_a_tokenizer_without_pad_pads_with_eos(tmp_path):
    model, tokenizer = load("tiny-qwen3", device="cpu", verbose=False)
    tokenizer.pad_token = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(str(tmp_path)).pad_token == "<|im_end|>"


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_dtype_asked_for_is_the_dtype_given(dtype):
    assert load("tiny-llama3", dtype=dtype, device="cpu", verbose=False)[0].dtype is getattr(torch, dtype)


def test_every_known_name_gives_a_tokenizer():
    for name in known_names():
        assert load_tokenizer(name).chat_template


def test_an_adapters_tokenizer_is_its_own_or_its_bases(adapter):
    tokenizer = load_tokenizer(str(adapter))
    assert len(tokenizer) == len(load_tokenizer("tiny-qwen3"))
    tokenizer.add_tokens(["<order>"])
    tokenizer.save_pretrained(adapter)
    assert "<order>" in load_tokenizer(str(adapter)).get_vocab()
    model, tokenizer = load(str(adapter), device="cpu", verbose=False)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)


def test_an_adapter_that_does_not_fit_its_base_is_refused(adapter):
    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != first}, weights)
    with pytest.raises(ModelError, match=f"holds nothing for {first}"):
        load(str(adapter), device="cpu", verbose=False)
    save_file(tensors | {first.replace("layers.0", "layers.9"): tensors[first].clone()}, weights)
    with pytest.raises(ModelError, match="has no place for .*layers.9"):
        load(str(adapter), device="cpu", verbose=False)


def test_an_adapter_of_other_widths_or_cut_short_is_refused(adapter):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    tensors = load_file(weights)
    wide = next(name for name in tensors if "lora_B" in name)
    save_file(tensors | {wide: torch.zeros(999, 2)}, weights)
    with pytest.raises(ModelError, match="does not fit tiny-qwen3: another size of .*999, 2"):
        load(str(adapter), device="cpu", verbose=False)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="adapter_model.safetensors cannot be read"):
        load(str(adapter), device="cpu", verbose=False)


def test_weights_that_are_missing_or_cut_short_are_not_made_up(tmp_path):
    model, tokenizer = load("tiny-llama3", device="cpu", verbose=False)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole, tensors = weights.read_bytes(), load_file(weights)
    save_file({name: t for name, t in tensors.items() if "down_proj" not in name}, weights, {"format": "pt"})
    with pytest.raises(ModelError, match="lacks 2 of the model's weights, model.layers.0.mlp.down_proj.weight among"):
        load(str(tmp_path), device="cpu", verbose=False)
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded: .*not fully covered"):
        load(str(tmp_path), device="cpu", verbose=False)


def test_an_adapter_without_safetensors_is_refused(adapter):
    weights = adapter / "adapter_model.safetensors"
    torch.save(load_file(weights), adapter / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(ModelError, match="only safetensors"):
        load(str(adapter), device="cpu", verbose=False)


def test_an_adapter_whose_base_is_unknown_or_gone_says_so(adapter):
    rewrite(adapter, base_model_name_or_path=None)
    with pytest.raises(ModelError, match="does not say which base model"):
        load(str(adapter))
    rewrite(adapter, base_model_name_or_path="/gone/away")
    with pytest.raises(ModelError, match="needs its base model: '/gone/away'.*say so in adapter_config.json"):
        load(str(adapter))


def test_an_adapter_on_the_embedded_model_finds_it_in_this_machines_cache(adapter):
    name = embedded.folder().name
    rewrite(adapter, base_model_name_or_path=f"/home/someone/.cache/ftkit/{name}")
    assert load_tokenizer(str(adapter)).eos_token == "<|im_end|>"
    rewrite(adapter, base_model_name_or_path=f"/home/someone/.cache/ftkit/{embedded.FOLDER_PREFIX}000000000000-v1")
    with pytest.raises(ModelError, match="was trained on"):
        load(str(adapter))
