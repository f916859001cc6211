"""Every method by its one field: train, save, reload, merge, and the best checkpoint as the result."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Trainer, TrainingArguments

from ftkit.errors import ConfigError
from ftkit.methods.by_name import attach
from ftkit.methods.registry import METHODS
from ftkit.models import load
from ftkit.training.config import RUN_FILE, LoRAConfig
from ftkit.training.lora import LoRAFineTuner
from ftkit.training.trainer import TokenTrainer

IDS = torch.arange(20)[None] + 30


def settings(folder, method, **changes):
    fast = {"lora_r": 4, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 12}
    steps = {"eval_steps": 2, "save_steps": 2, "logging_steps": 1, "save_total_limit": 20}
    return LoRAConfig(model_name="tiny-smollm", output_dir=str(folder), method=method, **{**fast, **steps, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_a_run_trains_saves_reloads_and_merges(method, rows, tmp_path):
    # LoRA+ multiplies B's rate: at 1e-2 its logits would grow, and with them the rounding of a merge.
    rate = {"vera": 0.3, "adalora": 0.1, "lora+": 2e-3}.get(method, 1e-2)
    tuner = LoRAFineTuner(settings(tmp_path / "run", method, learning_rate=rate), {"train": rows})
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    trained = tuner.model(IDS).logits
    loaded, _ = load(str(tmp_path / "run"), verbose=False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, trained, atol=1e-5, rtol=1e-5)
        assert (load("tiny-smollm", verbose=False)[0](IDS).logits - trained).abs().max() > 1e-2
    assert tuner.merge_and_save(tmp_path / "merged") < 1e-5
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["method"] == record["config"]["method"] == method
    assert not [p for p in (tmp_path / "run").rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "adalora"])
def test_the_best_checkpoint_is_the_result(method, rows, tmp_path):
    rate = 3.0 if method == "vera" else 3e-2
    config = settings(tmp_path / "run", method, learning_rate=rate, lr_scheduler_type="constant", warmup_ratio=0.0)
    # What is learned is wrong on the validation rows, so that their loss soon rises.
    prompt = {"role": "user", "content": "Say it."}
    data = {
        split: [{"messages": [prompt, {"role": "assistant", "content": letter * 20}]}] * 4
        for split, letter in (("train", "a"), ("validation", "z"))
    }
    tuner = LoRAFineTuner(config, data)
    metrics = tuner.train()
    losses = {}
    for entry in tuner.history:
        if "eval_loss" in entry:
            losses.setdefault(entry["step"], entry["eval_loss"])  # the last entry is of the restored weights
    best = min(losses, key=losses.get)
    assert best < 12 and losses[12] > losses[best] + 1e-3  # otherwise nothing is restored here
    assert metrics["eval_loss"] == pytest.approx(losses[best], abs=1e-5)
    loaded, _ = load(str(tmp_path / "run"), verbose=False)
    checkpoint, _ = load(str(tmp_path / "run" / f"checkpoint-{best}"), verbose=False)
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS).logits, checkpoint(IDS).logits, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(tuner.model(IDS).logits, checkpoint(IDS).logits, atol=1e-5, rtol=1e-5)


def test_adalora_ends_with_the_ranks_that_were_asked_for_and_logs_the_cross_entropy(rows, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", "adalora"), {"train": rows[::2], "validation": rows[1::2]})
    metrics = tuner.train()
    layers = sum("lora_E" in name for name, _ in tuner.model.named_parameters())
    assert tuner.adapter.ranks() == 4 * layers
    loaded, _ = load(str(tmp_path / "run"), verbose=False)
    assert sum(p.numel() for name, p in loaded.named_parameters() if "lora_E" in name) == 4 * layers
    first = next(entry["loss"] for entry in tuner.history)
    plain = LoRAFineTuner(settings(tmp_path / "lora", "lora", max_steps=1), {"train": rows[::2]})
    plain.train()
    assert first == pytest.approx(next(entry["loss"] for entry in plain.history), abs=1e-4)  # B = 0, E = 0: the base
    assert metrics["eval_loss"] < first + 1


@pytest.mark.parametrize("method", METHODS)
def test_what_trains_is_float32_on_a_half_precision_base(method, rows, tmp_path):
    tuner = LoRAFineTuner(settings(tmp_path / "run", method, torch_dtype="bfloat16"), {"train": rows})
    tuner.train()
    assert {p.dtype for p in tuner.model.parameters() if p.requires_grad} == {torch.float32}
    loaded, _ = load(str(tmp_path / "run"), dtype="bfloat16", verbose=False)
    with torch.no_grad():
        ours, theirs = tuner.model(IDS).logits.float(), loaded(IDS).logits.float()
    assert (ours - theirs).abs().mean() < 0.02 * ours.std()


@pytest.mark.parametrize("method", ["delta-lora", "adalora"])
def test_accumulation_counts_optimizer_steps(method, rows, tmp_path):
    tuner = LoRAFineTuner(
        settings(tmp_path / "run", method, batch_size=2, gradient_accumulation_steps=2), {"train": rows}
    )
    tuner.train()
    whole = LoRAFineTuner(settings(tmp_path / "whole", method), {"train": rows})
    whole.train()
    losses = [[entry["loss"] for entry in t.history if "loss" in entry] for t in (tuner, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_e12_1_the_scale_under_rslora_is_said(tmp_path, capsys):
    LoRAFineTuner(settings(tmp_path / "run", "rslora", lora_alpha=8.0)).load_model_and_tokenizer()
    assert "lora_alpha=8 at r=4 is a factor 4 " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": "lorafa"}, "Did you mean 'lora-fa'"),
        ({"method": "vera", "lora_alpha": 8.0}, "it has no scale alpha"),
        ({"method": "lora", "delta_lora_start_step": 3}, "means nothing to method='lora'"),
        ({"method": "lora", "delta_lora_ratio": 1.0}, "delta_lora_ratio=1.0 means nothing to method='lora'"),
        ({"method": "rslora", "lora_plus_lambda": 8.0}, "lora_plus_lambda=8.0 means nothing where use_lora_plus is"),
        ({"lora_plus_embedding_lr": 1e-5}, "lora_plus_embedding_lr=1e-05 means nothing"),
        ({"method": "delta-lora", "delta_lora_start_step": -1}, "must not be negative"),
        ({"method": "delta-lora", "delta_lora_ratio": 0.0}, "delta_lora_ratio must be above 0"),
        ({"method": "lora+", "lora_plus_embedding_lr": 0.0}, "lora_plus_embedding_lr must be above 0"),
    ],
)
def test_a_contradiction_is_refused_when_it_is_made(changes, says):
    with pytest.raises(ConfigError) as error:
        LoRAConfig(**changes)
    assert says in str(error.value)


def test_the_two_switches_of_the_guide_still_work():
    assert LoRAConfig(use_rslora=True).method == "lora" and LoRAConfig(method="rslora").use_rslora
    assert LoRAConfig(use_lora_plus=True).method == "lora" and LoRAConfig(method="lora+").use_lora_plus
    assert LoRAConfig(method="dora", use_rslora=True, use_lora_plus=True).lora_alpha == 16


@pytest.mark.parametrize("plugin", ["FSDP", "DEEPSPEED"])
def test_sharded_weights_are_refused_before_a_model_is_loaded(plugin, tmp_path, monkeypatch):
    monkeypatch.setenv(f"ACCELERATE_USE_{plugin}", "true")
    with pytest.raises(ConfigError, match="Start it by torchrun instead"):
        LoRAFineTuner(settings(tmp_path, "lora"), {"train": []})


def test_a_trainer_of_ones_own_is_not_sharded_either(tmp_path, monkeypatch):
    original = Trainer.create_accelerator_and_postprocess

    def sharded(self):
        original(self)
        self.is_fsdp_enabled = True

    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", sharded)
    adapter = attach(load("tiny-smollm", verbose=False)[0], "lora", r=4)
    with pytest.raises(ConfigError, match="Start it by torchrun instead"):
        TokenTrainer(adapter, args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_a_run_too_short_for_its_method_is_refused_before_it_trains(rows, tmp_path):
    for method, says in (("adalora", "at least 10 steps"), ("delta-lora", "starts after step 9")):
        start = {"delta_lora_start_step": 9} if method == "delta-lora" else {}
        tuner = LoRAFineTuner(settings(tmp_path / method, method, max_steps=4, **start), {"train": rows})
        with pytest.raises(ConfigError, match=says):
            tuner.train()
        assert not (Path(tuner.config.output_dir) / RUN_FILE).exists()
