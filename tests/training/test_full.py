"""Full fine-tuning on the tiny model of every family, and what the guide's listing has wrong about it."""

import random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from ftkit.models.tiny import TINY
from ftkit.training.config import FullFineTuningConfig, LoRAConfig
from ftkit.training.full import FullFineTuner
from ftkit.training.lora import LoRAFineTuner

SETTINGS = {"batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 6, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def data():
    words = "red green blue black white".split()
    rows = [
        {"messages": [{"role": "user", "content": f"{w} {v}?"}, {"role": "assistant", "content": f"{v} {w}."}]}
        for w in words
        for v in words
    ]
    return {"train": rows[:16], "validation": rows[16:]}


def full(folder, data, model="tiny-smollm", **changes):
    return FullFineTuner(
        FullFineTuningConfig(model_name=model, output_dir=str(folder), **{**SETTINGS, **changes}), data
    )


@pytest.mark.parametrize("model", TINY)
def test_every_family_trains_whole_and_is_saved_for_transformers(model, data, tmp_path):
    tuner = full(tmp_path / "run", data, model)
    tuner.load_model_and_tokenizer()
    before = {name: p.detach().clone() for name, p in tuner.model.named_parameters()}
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0]
    for name, parameter in tuner.model.named_parameters():
        moved = not torch.equal(parameter, before[name])
        # What no text reaches (a vision tower) or no loss (an indexer) is frozen; an expert may see no token.
        assert moved == parameter.requires_grad or "expert" in name or "router" in name or "gate" in name, name
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "run", dtype=torch.float32)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.allclose(loaded(ids).logits, tuner.model(ids).logits, atol=1e-5)


@pytest.mark.parametrize("model", ["tiny-llama3", "tiny-qwen3", "tiny-gemma3"])
def test_e8_2_norms_do_not_decay_and_matrices_do(model, data, tmp_path):
    tuner = full(tmp_path / "run", data, model, weight_decay=0.1)
    tuner.load_model_and_tokenizer()
    decay = {id(p): g["weight_decay"] for g in tuner.get_optimizer_grouped_parameters() for p in g["params"]}
    for module in tuner.model.modules():
        for parameter in module.parameters(recurse=False):
            norm = "norm" in type(module).__name__.lower()
            assert decay[id(parameter)] == (0.0 if norm or parameter.ndim < 2 else 0.1), type(module).__name__


def test_e8_3_weights_are_float32_whatever_the_arithmetic(data, tmp_path):
    tuner = full(tmp_path / "run", data, torch_dtype="bfloat16", learning_rate=2e-5, max_steps=3)
    tuner.load_model_and_tokenizer()
    before = {name: p.detach().clone() for name, p in tuner.model.named_parameters()}
    tuner.train()
    assert {p.dtype for p in tuner.model.parameters()} == {torch.float32}
    moved = {name: (p != before[name]).float().mean().item() for name, p in tuner.model.named_parameters()}
    assert min(share for name, share in moved.items() if "norm" in name) > 0.9
    # In bfloat16 the same steps would have moved no norm at all: half the distance of 1 to its neighbour is 2e-3.
    assert all(
        torch.equal(p.bfloat16(), before[name].bfloat16())
        for name, p in tuner.model.named_parameters()
        if "norm" in name
    )


def test_e8_4_flash_attention_that_is_not_installed_is_no_error(data, tmp_path):
    tuner = full(tmp_path / "run", data, use_flash_attention=True)
    model, _ = tuner.load_model_and_tokenizer()
    assert model.config._attn_implementation == "sdpa"


def test_e8_8_a_short_run_warms_up_and_every_step_is_logged_with_its_own_loss(data, tmp_path):
    tuner = full(tmp_path / "run", data, warmup_ratio=0.03)
    tuner.train()
    steps = [entry for entry in tuner.history if "loss" in entry]
    assert [entry["step"] for entry in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[0]["learning_rate"] == 0 and steps[1]["learning_rate"] == pytest.approx(1e-2)
    assert all(entry["loss"] == pytest.approx(entry["nll"] / entry["tokens"]) for entry in steps)


def test_e8_9_the_seed_is_pythons_numpys_and_torchs(data, tmp_path):
    tuner, draws = full(tmp_path / "run", data), []
    for _ in range(2):
        tuner.setup_seed()
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_e9_8_both_trainers_have_the_same_betas(data, tmp_path):
    tuners = [
        full(tmp_path / "a", data),
        *(
            LoRAFineTuner(
                LoRAConfig(model_name="tiny-smollm", lora_r=4, use_lora_plus=plus, output_dir=str(tmp_path / "b")), data
            )
            for plus in (False, True)
        ),
    ]
    for tuner in tuners:
        tuner.load_model_and_tokenizer()
        optimizer = tuner.create_optimizer()
        assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.parametrize("tuner", [FullFineTuner, LoRAFineTuner])
def test_e9_3_saving_need_not_fall_on_evaluations_and_the_best_is_kept(tuner, data, tmp_path):
    config = FullFineTuningConfig if tuner is FullFineTuner else LoRAConfig
    made = tuner(
        config(model_name="tiny-smollm", output_dir=str(tmp_path / "run"), save_steps=3, eval_steps=2, **SETTINGS), data
    )
    metrics = made.train()
    evaluated = {entry["step"]: entry["eval_loss"] for entry in made.history if "eval_loss" in entry}
    assert {2, 3, 4, 6} <= set(evaluated)
    assert metrics["eval_loss"] == min(evaluated[3], evaluated[6])


def test_e9_1_the_guides_arguments_are_gone_and_ours_reach_the_trainer(data, tmp_path):
    from dataclasses import fields

    from transformers import TrainingArguments

    assert not {"warmup_ratio", "evaluation_strategy"} & {field.name for field in fields(TrainingArguments)}
    tuner = full(tmp_path / "run", data, warmup_ratio=0.5)
    tuner.train()
    rates = [entry["learning_rate"] for entry in tuner.history if "loss" in entry]
    assert rates.index(max(rates)) == 3 and any("eval_loss" in entry for entry in tuner.history)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_e9_2_e9_4_half_precision_trains_on_a_cpu_and_stays_finite(dtype, data, tmp_path):
    config = LoRAConfig(
        model_name="tiny-smollm",
        torch_dtype=dtype,
        lora_r=4,
        modules_to_save=("embed_tokens",),
        output_dir=str(tmp_path / "run"),
        **SETTINGS,
    )
    tuner = LoRAFineTuner(config, data)
    metrics = tuner.train()
    assert {p.dtype for p in tuner.model.parameters() if p.requires_grad} == {torch.float32}
    assert np.isfinite(metrics["eval_loss"]) and not any("skipped" in entry for entry in tuner.history)


def test_rows_of_like_length_and_packed_rows_train_the_same_tokens(data, tmp_path):
    longer = {"train": data["train"] + [_long(n) for n in (5, 30, 60)], "validation": data["validation"]}
    tokens = {}
    for name, changes in {"plain": {}, "grouped": {"group_by_length": True}, "packed": {"packing": True}}.items():
        settings = {"max_steps": None, "num_epochs": 1, "max_seq_length": 1024} | changes
        tuner = full(tmp_path / name, longer, **settings)
        tuner.train()
        tokens[name] = sum(entry["tokens"] for entry in tuner.history if "loss" in entry)
    assert tokens["plain"] == tokens["grouped"] == tokens["packed"] > 0


def _long(n):
    return {"messages": [{"role": "user", "content": "go on"}, {"role": "assistant", "content": "and " * n}]}


def test_e8_5_the_schedule_counts_optimizer_steps_and_the_last_incomplete_group(data, tmp_path):
    settings = {"max_steps": None, "num_epochs": 2, "batch_size": 1, "gradient_accumulation_steps": 5}
    tuner = full(tmp_path / "run", {"train": data["train"][:12]}, **settings)
    tuner.train()
    assert tuner.total_steps() == tuner.trainer.state.global_step == 6
    assert tuner.trainer.lr_scheduler.get_last_lr()[0] == 0


def test_packed_rows_come_as_one_where_attention_is_flash(data, tmp_path):
    tuner = full(tmp_path / "run", data, packing=True, max_seq_length=512)
    tuner.load_model_and_tokenizer()
    tuner.model.config._attn_implementation = "flash_attention_2"  # which this machine could not run
    tuner.load_data()
    batch = tuner.create_trainer().data_collator(tuner.dataset["train"][:2])
    assert len(batch["input_ids"]) == 1 and (batch["position_ids"] == 0).sum() > 4


def test_a_machine_with_two_gpus_trains_on_one_unless_torchrun_asks(data, tmp_path, monkeypatch):
    from transformers import TrainingArguments

    from ftkit.training import finetuner

    def on_two_gpus(**settings):
        arguments = TrainingArguments(**settings)
        arguments._n_gpu = 2
        return arguments

    monkeypatch.setattr(finetuner, "TrainingArguments", on_two_gpus)
    monkeypatch.setattr(on_two_gpus, "__dataclass_fields__", TrainingArguments.__dataclass_fields__, raising=False)
    tuner = full(tmp_path / "run", data)
    tuner._prepare()
    assert tuner.arguments.train_batch_size == SETTINGS["batch_size"]
    assert type(tuner.trainer._wrap_model(tuner.model)) is type(tuner.model)  # no DataParallel


def test_a_run_of_one_step_moves_the_weights(data, tmp_path):
    tuner = full(tmp_path / "run", data, max_steps=1)
    tuner.load_model_and_tokenizer()
    before = tuner.model.get_input_embeddings().weight.detach().clone()
    tuner.train()
    assert not torch.equal(tuner.model.get_input_embeddings().weight, before)


def test_training_and_evaluating_make_no_logits_but_those_of_trained_positions(data, tmp_path):
    tuner, seen = full(tmp_path / "run", data, max_steps=2, eval_steps=1), []
    tuner.load_model_and_tokenizer()
    tuner.model.lm_head.register_forward_hook(lambda module, inputs, logits: seen.append(logits.numel() // 259))
    tuner.train()
    steps = [entry["tokens"] for entry in tuner.history if "tokens" in entry]
    evaluated = [entry["eval_tokens"] for entry in tuner.history if "eval_tokens" in entry]
    assert sum(seen) == sum(steps) + sum(evaluated)


def test_e8_8_a_report_is_the_mean_over_the_tokens_since_the_last_one(data, tmp_path):
    tuner = full(tmp_path / "run", {"train": data["train"]}, max_steps=5, logging_steps=2)
    tuner.train()
    reports = [entry for entry in tuner.trainer.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in reports] == [2, 4]
    for entry in reports:
        steps = [e for e in tuner.history if "nll" in e and entry["step"] - 2 < e["step"] <= entry["step"]]
        assert entry["loss"] == sum(e["nll"] for e in steps) / sum(e["tokens"] for e in steps)
