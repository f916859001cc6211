"""Merging, and the receipt that says what each merge changes."""

import json

import bitsandbytes as bnb
import pytest
import torch
from transformers import AutoModelForCausalLM

from ftkit.data.chat import encode_prompt
from ftkit.errors import ConfigError, ModelError
from ftkit.export.merge import RECEIPT_FILE, merge, merge_and_save
from ftkit.methods.by_name import attach
from ftkit.methods.lora import attach_lora
from ftkit.methods.registry import METHODS
from ftkit.models import Quantization, load, stop_token_ids
from ftkit.models.quantized import quantized_weights
from ftkit.models.tiny import TINY

IDS = torch.arange(40).reshape(2, 20) + 30
CHAT = [[{"role": "user", "content": text}] for text in ("Say one.", "Count to three.", "What is a merge?")]


def disturb(model, std=0.05):
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += std * torch.randn(parameter.shape, generator=generator)


def save_run(folder, name, quantization=None, method="lora", **changes):
    """An adapter that changes its base, saved as a trainer saves it; its own logits."""
    base, tokenizer = load(name, dtype="float32", quantization=quantization, verbose=False)
    adapter = attach(base, method, r=4, **changes)
    disturb(adapter.model)
    adapter.save(str(folder))
    tokenizer.save_pretrained(str(folder))
    return logits(adapter.model)


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


def plain(folder, **options):
    return AutoModelForCausalLM.from_pretrained(folder, **options)


@pytest.fixture
def adapter(tmp_path):
    """An adapter that changes its base, saved as PEFT saves it."""
    base, tokenizer = load("tiny-llama3", verbose=False)
    model = attach_lora(base, r=4, lora_alpha=8)
    disturb(model)
    model.save_pretrained(str(tmp_path / "adapter"), save_embedding_layers=False)
    tokenizer.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_float32_keeps_the_logits_and_bfloat16_says_what_it_rounds(adapter, tmp_path):
    exact = merge_and_save(adapter, tmp_path / "exact")
    rounded = merge_and_save(adapter, tmp_path / "rounded", dtype="bfloat16")
    assert exact < 1e-5 < rounded


@pytest.mark.parametrize("kind", ["tiny", "wide"])
@pytest.mark.parametrize("name", TINY)
def test_e10_3_the_dequantised_merge_is_the_trained_model_on_every_family(wide, name, kind, tmp_path):
    base = wide(name) if kind == "wide" else name
    trained = save_run(tmp_path / "run", base, Quantization(compute_dtype="float32"))
    receipt = merge(tmp_path / "run", tmp_path / "merged", compare=False)
    merged = plain(tmp_path / "merged", dtype=torch.float32)
    assert (logits(merged) - trained).abs().max() < 1e-5
    assert receipt.onto == "dequantized" and receipt.changes["dequantized"].max_logit < 2e-5
    assert receipt.changes["dequantized"].answers == 0
    tied = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert tied == merged.config.get_text_config().tie_word_embeddings
    without, _ = load(base, dtype="float32", verbose=False)
    assert (logits(without) - trained).abs().max() > 1e-2


@pytest.mark.parametrize("method", [m for m in METHODS if "quantised_base" not in METHODS[m].refuses])
def test_every_method_that_trains_on_4_bits_merges_exactly(wide, method, tmp_path):
    trained = save_run(tmp_path / "run", wide("tiny-llama3"), Quantization(compute_dtype="float32"), method)
    merge(tmp_path / "run", tmp_path / "merged", compare=False)
    torch.testing.assert_close(logits(plain(tmp_path / "merged", dtype=torch.float32)), trained, atol=1e-5, rtol=1e-5)


def test_the_receipts_numbers_computed_another_way(wide, tmp_path):
    """From the three merged folders alone, loaded by Transformers, in float64, one token at a time."""
    base = wide("tiny-llama3")
    save_run(tmp_path / "run", base, Quantization(compute_dtype="float32"))
    targets, receipt = ("dequantized", "original", "requantized"), None
    for onto in targets:
        receipt = merge(tmp_path / "run", tmp_path / onto, onto=onto, prompts=CHAT, max_new_tokens=12)
        written = json.loads((tmp_path / onto / RECEIPT_FILE).read_text())
        assert written["onto"] == onto and set(written["changes"]) == set(targets)

    trained, tokenizer = load(str(tmp_path / "run"), dtype="float32", verbose=False)
    stops = set(stop_token_ids(tokenizer, trained))

    def next_logits(model, ids):
        for module in model.modules():
            if isinstance(module, bnb.nn.Linear4bit):
                module.support_avx512bf16_for_cpu = False
        with torch.no_grad():
            return model.eval()(torch.tensor([ids])).logits[0, -1].double()

    def answer(model, prompt):
        ids = []
        while len(ids) < 12 and (not ids or ids[-1] not in stops):
            ids.append(next_logits(model, prompt + ids).argmax().item())
        return ids

    prompts = [encode_prompt(tokenizer, messages) for messages in CHAT]
    answers = [answer(trained, prompt) for prompt in prompts]
    for onto in targets:
        other = plain(tmp_path / onto, dtype=torch.float32)
        differences, divergences, tops = [], [], []
        for prompt, said in zip(prompts, answers, strict=True):
            for i in range(len(said)):
                p, q = (next_logits(m, prompt + said[:i]) for m in (trained, other))
                differences.append((q - p).abs())
                divergences.append((p.softmax(0) * (p.log_softmax(0) - q.log_softmax(0))).sum())
                tops.append(p.argmax() != q.argmax())
        found = receipt.changes[onto]
        assert found.max_logit == pytest.approx(max(d.max().item() for d in differences), abs=1e-5)
        assert found.mean_logit == pytest.approx(torch.stack(differences).mean().item(), abs=1e-5)
        assert found.kl == pytest.approx(torch.stack(divergences).mean().item(), abs=1e-5)
        assert found.top_token == pytest.approx(sum(tops).item() / len(tops))
        differing = sum(answer(other, prompt) != said for prompt, said in zip(prompts, answers, strict=True))
        assert found.answers == pytest.approx(differing / len(prompts))
    exact, original, again = (receipt.changes[onto] for onto in targets)
    assert exact.max_logit < 1e-5 < 0.05 < min(original.max_logit, again.max_logit)
    assert exact.kl < 1e-9 < again.kl


@pytest.mark.parametrize("name", ["tiny-llama3", "tiny-qwen3-moe", "tiny-deepseek-v3"])
def test_requantised_loads_in_transformers_in_4_bits(wide, name, tmp_path):
    save_run(tmp_path / "run", wide(name), Quantization("nf4", True, "float32"))
    receipt = merge(tmp_path / "run", tmp_path / "merged", onto="requantized", compare=False)
    assert receipt.dtype == "4-bit" and receipt.reload_difference < 1e-4
    model = plain(tmp_path / "merged")
    assert any(isinstance(m, bnb.nn.Linear4bit) for m in model.modules())
    by_name, _ = load(str(tmp_path / "merged"), verbose=False)
    assert not any(m.support_avx512bf16_for_cpu for m in by_name.modules() if isinstance(m, bnb.nn.Linear4bit))


def test_a_run_in_bfloat16_is_quantised_again_from_bfloat16(wide, tmp_path):
    """Which numbers round to which code depends on what they were rounded to before."""
    base, tokenizer = load(wide("tiny-llama3"), dtype="bfloat16", quantization=Quantization(), verbose=False)
    adapter = attach(base, "lora", r=4)
    disturb(adapter.model)
    adapter.save(str(tmp_path / "run"))
    tokenizer.save_pretrained(str(tmp_path / "run"))
    trained = logits(adapter.model).float()
    merge(tmp_path / "run", tmp_path / "merged", compare=False)
    merged = logits(plain(tmp_path / "merged", dtype=torch.float32))
    assert (merged - trained).abs().mean() < 0.02 * trained.std()  # bfloat16's own arithmetic
    again, _ = load(str(tmp_path / "run"), quantization="auto", verbose=False)
    for (_, mine, _), (_, theirs, _) in zip(quantized_weights(adapter.model), quantized_weights(again), strict=True):
        assert torch.equal(mine.data, theirs.data)


def test_a_wrong_merge_is_refused_and_leaves_nothing(adapter, tmp_path, monkeypatch):
    from peft import LoraModel

    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())  # drops the adapter instead
    with pytest.raises(ModelError, match="merge is wrong"):
        merge_and_save(adapter, tmp_path / "merged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]


def test_a_folder_that_reloads_as_another_model_is_refused_and_leaves_nothing(adapter, tmp_path, monkeypatch):
    from ftkit.export import merge as module

    def changed(name, **options):
        model, tokenizer = load(name, **options)
        if name != str(adapter):
            model.get_output_embeddings().weight.data *= 1.1
        return model, tokenizer

    monkeypatch.setattr(module, "load", changed)
    with pytest.raises(ModelError, match="the reloaded folder differ from those of what was saved"):
        merge_and_save(adapter, tmp_path / "merged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["adapter"]


def test_a_base_that_has_changed_is_refused(tmp_path, wide):
    import shutil

    from safetensors.torch import load_file, save_file

    base = tmp_path / "base"
    shutil.copytree(wide("tiny-llama3"), base)
    save_run(tmp_path / "run", str(base), Quantization())
    state = load_file(base / "model.safetensors")
    state["model.embed_tokens.weight"] *= 1.1
    save_file(state, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="was trained on another base"):
        merge(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_link_to_an_empty_folder_is_followed_and_the_working_folder_refused_before_the_work(
    adapter, tmp_path, monkeypatch
):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
    merge_and_save(adapter, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real/model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "link", "real"]
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("ftkit.export.merge._load", None)
    with pytest.raises(ConfigError, match="working folder or a mount point"):
        merge_and_save(adapter, ".")


def test_what_is_wrong_is_one_sentence(adapter, tmp_path):
    with pytest.raises(ModelError, match="holds no adapter"):
        merge_and_save(tmp_path / "nothing", tmp_path / "merged")
    with pytest.raises(ConfigError, match="is not empty"):
        merge_and_save(adapter, adapter)
    (tmp_path / "file").write_text("mine")
    for output, says in (("file", "is not empty"), ("file/merged", "cannot be written")):
        with pytest.raises(ConfigError, match=says):
            merge_and_save(adapter, tmp_path / output)
    with pytest.raises(ConfigError, match="dtype must be"):
        merge_and_save(adapter, tmp_path / "merged", dtype="int8")
    with pytest.raises(ConfigError, match="onto must be one of"):
        merge(adapter, tmp_path / "merged", onto="nearest")
    for onto in ("dequantized", "requantized"):
        with pytest.raises(ConfigError, match="was trained on one that was not quantised"):
            merge(adapter, tmp_path / "merged", onto=onto)
    save_run(tmp_path / "run", "tiny-llama3", Quantization())
    with pytest.raises(ConfigError, match="saved in 4 bits, so dtype='bfloat16' means nothing"):
        merge(tmp_path / "run", tmp_path / "merged", onto="requantized", dtype="bfloat16")
