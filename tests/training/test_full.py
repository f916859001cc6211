"""Full fine-tuning: what the guide gets wrong, and every family."""

import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from ftkit.errors import ConfigError, TrainingError
from ftkit.models import load
from ftkit.training.config import FullFineTuningConfig
from ftkit.training.full import FullFineTuner
from ftkit.training.trainer import TokenTrainer, mean_loss

FAMILIES = ("llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3", "deepseek-v3.2", "gemma3", "gemma3-vision")


def settings(folder, model="tiny-smollm", **changes):
    fast = {"learning_rate": 3e-3, "batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 3}
    steps = {"eval_steps": 2, "save_steps": 2, "logging_steps": 2}
    return FullFineTuningConfig(model_name=model, output_dir=str(folder), **{**fast, **steps, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_the_families_train_and_are_saved_as_transformers_reads_them(family, rows, tmp_path):
    tuner = FullFineTuner(settings(tmp_path / "run", f"tiny-{family}"), {"train": rows[:4]})
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0]
    loaded, _ = load(str(tmp_path / "run"), dtype="float32", verbose=False)
    ids = torch.arange(20)[None] + 30
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, tuner.model(ids).logits, atol=1e-6, rtol=1e-5)
    tied = loaded.config.get_text_config().tie_word_embeddings
    assert tied == (loaded.get_input_embeddings().weight is loaded.get_output_embeddings().weight)


@pytest.mark.parametrize("family", ("smollm", "llama4", "qwen3", "deepseek-v3.2", "gemma3"))
def test_e8_2_no_norm_and_no_bias_decays(family, tmp_path):
    tuner = FullFineTuner(settings(tmp_path, f"tiny-{family}", weight_decay=0.1))
    tuner.load_model_and_tokenizer()
    decays = {
        id(p): group["weight_decay"] for group in tuner.get_optimizer_grouped_parameters() for p in group["params"]
    }
    matrices = norms = 0
    for module in tuner.model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if id(parameter) not in decays:
                assert not parameter.requires_grad
            elif isinstance(module, nn.Linear | nn.Embedding) and name == "weight":
                assert decays[id(parameter)] == 0.1
                matrices += 1
            elif parameter.ndim == 1:
                assert decays[id(parameter)] == 0
                norms += "Norm" in type(module).__name__
    assert matrices > 5 and norms > 3


def test_e8_3_the_weights_are_float32_and_all_move_under_bfloat16_arithmetic(rows, tmp_path):
    config = settings(tmp_path / "run", mixed_precision="bf16", learning_rate=2e-5, max_steps=4, warmup_ratio=0.0)
    tuner = FullFineTuner(config, {"train": rows[:4]})
    before = load("tiny-smollm", dtype="float32", verbose=False)[0].state_dict()
    tuner.train()
    assert {p.dtype for p in tuner.model.parameters()} == {torch.float32}
    for name, parameter in tuner.model.named_parameters():
        if "embed" not in name:  # rows of tokens that do not occur stay
            assert (parameter != before[name]).float().mean() > 0.9, name
    exact = FullFineTuner(settings(tmp_path / "exact", max_steps=1), {"train": rows[:4]})
    exact.train()
    difference = abs(exact.history[0]["loss"] - tuner.history[0]["loss"])
    assert 1e-6 < difference < 0.05  # bfloat16 it was


def test_e8_4_flash_attention_is_no_condition(tmp_path):
    FullFineTuner(settings(tmp_path, use_flash_attention=True)).load_model_and_tokenizer()


def test_e8_5_the_learning_rate_ends_with_the_run(rows, tmp_path):
    config = settings(tmp_path / "run", max_steps=None, num_epochs=2, batch_size=1, gradient_accumulation_steps=5)
    tuner = FullFineTuner(config, {"train": rows})
    tuner.train()
    assert tuner.total_steps() == tuner.trainer.state.global_step == 6
    assert tuner.trainer.lr_scheduler.get_last_lr()[0] == 0


def test_e8_8_the_logged_loss_is_the_tokens_mean_since_the_last_report(rows, tmp_path):
    tuner = FullFineTuner(settings(tmp_path / "run", max_steps=5, save_steps=3), {"train": rows})
    tuner.train()
    reports = [entry for entry in tuner.trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in reports] == [2, 4]
    for entry in reports:
        steps = [e for e in tuner.history if "nll" in e and entry["step"] - 2 < e["step"] <= entry["step"]]
        assert entry["loss"] == mean_loss(steps) == sum(e["nll"] for e in steps) / sum(e["tokens"] for e in steps)
    assert math.ceil(0.03 * 5) == 1 and tuner.history[0]["learning_rate"] == 0  # it warms up, however short


def test_e8_9_every_generator_is_seeded(tmp_path):
    draws = []
    for _ in range(2):
        FullFineTuner(settings(tmp_path))
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_a_step_that_is_not_finite_is_skipped_and_too_many_stop_the_run(rows, tmp_path, monkeypatch):
    original = TokenTrainer.training_step

    def broken(self, model, inputs, num_items_in_batch=None):
        loss = original(self, model, inputs, num_items_in_batch)
        if self.state.global_step in bad:
            next(p for p in model.parameters() if p.requires_grad).grad.view(-1)[0] = math.inf
        return loss

    monkeypatch.setattr(TokenTrainer, "training_step", broken)
    bad = {0, 1}
    tuner = FullFineTuner(settings(tmp_path / "run", max_steps=2), {"train": rows})
    before = load("tiny-smollm", dtype="float32", verbose=False)[0].state_dict()
    tuner.train()
    assert [entry["skipped"] for entry in tuner.history] == ["gradient"] * 2
    assert all(torch.equal(tensor, before[name]) for name, tensor in tuner.model.state_dict().items())
    stopped = FullFineTuner(settings(tmp_path / "stop", max_steps=3, max_nonfinite_steps=1), {"train": rows})
    with pytest.raises(TrainingError, match="the gradient of step 2 is not finite") as error:
        stopped.train()
    first, last = (entry["rows"] for entry in stopped.history)
    assert f"are {', '.join(map(str, last))}." in str(error.value)
    assert len({*first, *last}) == 8  # two steps of an epoch share no row


def test_it_stops_early_and_is_then_complete(tmp_path):
    data = {
        split: [{"messages": [{"role": "user", "content": "Say it."}, {"role": "assistant", "content": letter * 20}]}]
        * 4
        for split, letter in (("train", "a"), ("validation", "z"))
    }
    often = {"eval_steps": 1, "save_steps": 7, "early_stopping_patience": 2}
    config = settings(tmp_path / "run", max_steps=40, learning_rate=3e-2, **often)
    metrics = FullFineTuner(config, data).train()
    assert metrics["steps"] < 40 and metrics["step"] <= metrics["steps"]
    assert FullFineTuner(config, data).train(resume=True)["steps"] == metrics["steps"]


@pytest.mark.parametrize("changes", [{"group_by_length": True}, {"packing": True, "max_seq_length": 512}])
def test_every_row_is_trained_once_an_epoch(changes, rows, tmp_path):
    config = settings(tmp_path / "run", max_steps=None, num_epochs=1, batch_size=2, **changes)
    tuner = FullFineTuner(config, {"train": rows})
    tuner.train()
    plain = FullFineTuner(settings(tmp_path / "plain"), {"train": rows})
    plain.load_model_and_tokenizer()
    expected = sum(label != -100 for row in plain.load_data()["train"] for label in row["labels"])
    assert sum(entry["tokens"] for entry in tuner.history) == expected


def test_packing_is_refused_where_rows_would_mix(rows, tmp_path):
    tuner = FullFineTuner(settings(tmp_path, "tiny-deepseek-v3.2", packing=True), {"train": rows})
    tuner.load_model_and_tokenizer()
    with pytest.raises(ConfigError, match="cannot keep them apart"):
        tuner.load_data()
