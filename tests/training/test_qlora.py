"""QLoRA end to end on a CPU: what is in 4 bits, training, resuming, saving, merging."""

import json
import subprocess
import sys

import bitsandbytes as bnb
import pytest
import torch
from transformers import TrainerCallback

from ftkit.errors import ConfigError, Interrupted, MissingDependency
from ftkit.methods.registry import METHODS
from ftkit.models import Quantization, base_record, load
from ftkit.models.quantized import dequantize, quantized_weights, settings_of, share_in_four_bits
from ftkit.models.tiny import TINY
from ftkit.training.config import OPTIMIZERS, RUN_FILE, QLoRAConfig
from ftkit.training.qlora import QLoRAFineTuner

IDS = torch.arange(20)[None] + 30
ALLOWED = [m for m in METHODS if "quantised_base" not in METHODS[m].refuses]


def settings(folder, name="tiny-smollm", **changes):
    fast = {"lora_r": 4, "learning_rate": 1e-2, "batch_size": 4, "gradient_accumulation_steps": 1, "max_steps": 6}
    steps = {"eval_steps": 4, "save_steps": 4, "logging_steps": 1}
    return QLoRAConfig(model_name=name, output_dir=str(folder), **{**fast, **steps, **changes})


def logits(model):
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("name", TINY)
def test_every_family_trains_saves_reloads_and_merges(name, rows, tmp_path):
    tuner = QLoRAFineTuner(settings(tmp_path / "run", name), {"train": rows})
    tuner.load_model_and_tokenizer()
    base = tuner.adapter.causal_model
    assert share_in_four_bits(base) > 0.5
    before = [
        weight.data.clone() if isinstance(weight, bnb.nn.Params4bit) else weight.packed.clone()
        for _, weight, _ in quantized_weights(base)
    ]
    metrics = tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    for kept, (_, weight, _) in zip(before, quantized_weights(base), strict=True):
        assert torch.equal(kept, weight.data if isinstance(weight, bnb.nn.Params4bit) else weight.packed)
    assert {p.dtype for p in tuner.model.parameters() if p.requires_grad} == {torch.float32}
    trained = logits(tuner.model)
    loaded, _ = load(str(tmp_path / "run"), verbose=False)
    torch.testing.assert_close(logits(loaded), trained, atol=1e-5, rtol=1e-5)
    assert tuner.merge_and_save(tmp_path / "merged") < 1e-4
    merged, _ = load(str(tmp_path / "merged"), verbose=False, dtype="float32")
    torch.testing.assert_close(logits(merged), trained, atol=1e-5, rtol=1e-5)
    assert metrics["peak_memory_bytes"] > 0 and (tmp_path / "run" / "README.md").is_file()
    assert not [p for p in (tmp_path / "run").rglob("*") if p.suffix in (".bin", ".pt", ".pth", ".pkl")]


@pytest.mark.parametrize("method", ALLOWED)
def test_every_method_that_leaves_the_base_as_it_is(method, rows, tmp_path, wide):
    rate = {"vera": 0.3, "adalora": 0.1}.get(method, 1e-2)
    config = settings(
        tmp_path / "run", wide("tiny-qwen3"), method=method, learning_rate=rate, torch_dtype="float32", max_steps=10
    )
    tuner = QLoRAFineTuner(config, {"train": rows})
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    assert tuner.merge_and_save(tmp_path / "merged") < 1e-4


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ALLOWED])
def test_a_method_that_moves_the_base_is_refused_at_once(method):
    with pytest.raises(ConfigError, match="a quantised base cannot hold"):
        QLoRAConfig(method=method)
    QLoRAConfig(method=method, load_in_4bit=False)


def test_e10_1_load_in_4bit_false_really_loads_unquantised(rows, tmp_path):
    """The guide's listing still quantises then: it passes a quantization configuration all the same."""
    tuner = QLoRAFineTuner(settings(tmp_path / "run", load_in_4bit=False, max_steps=2), {"train": rows})
    tuner.train()
    base = tuner.adapter.causal_model
    assert not list(quantized_weights(base)) and settings_of(base) is None
    assert not [m for m in base.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert base_record.read(tmp_path / "run").quantization is None


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, Quantization("nf4", True, "float32")),
        ({"bnb_4bit_quant_type": "fp4", "bnb_4bit_use_double_quant": False}, Quantization("fp4", False, "float32")),
        ({"bnb_4bit_compute_dtype": "bfloat16"}, Quantization("nf4", True, "bfloat16")),
    ],
)
def test_the_base_is_held_as_the_configuration_says(chosen, found, tmp_path):
    tuner = QLoRAFineTuner(settings(tmp_path / "run", **chosen))
    model, _ = tuner.load_model_and_tokenizer()
    assert settings_of(model.get_base_model()) == found


def test_e3_3_embeddings_and_head_do_not_train_unless_asked(tmp_path):
    model, _ = QLoRAFineTuner(settings(tmp_path / "run")).load_model_and_tokenizer()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    asked = settings(tmp_path / "run", modules_to_save=("embed_tokens",))
    model, _ = QLoRAFineTuner(asked).load_model_and_tokenizer()
    assert any("embed_tokens" in name for name, p in model.named_parameters() if p.requires_grad)


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_e10_5_optimizers_step_on_a_cpu(optim, rows, tmp_path):
    tuner = QLoRAFineTuner(settings(tmp_path / "run", "tiny-llama3", optim=optim), {"train": rows})
    tuner.train()
    losses = [entry["loss"] for entry in tuner.history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.1
    optimizer = tuner.trainer.optimizer
    optimizer = getattr(optimizer, "optimizer", optimizer)
    assert type(optimizer).__module__.startswith("torch" if optim == "adamw_torch" else "bitsandbytes")
    assert {group["betas"] for group in optimizer.param_groups} == {(0.9, 0.95)}


@pytest.mark.parametrize("optim", OPTIMIZERS)
def test_a_resumed_run_equals_one_that_never_stopped(optim, rows, tmp_path):
    """To the bit: adapters, log and optimizer, with dropout, in the middle of an epoch."""
    data = {"train": rows, "validation": rows[:3]}
    # Wide enough that some states really are in 8 bits: bitsandbytes keeps those of small tensors in float32.
    more = {"optim": optim, "lora_dropout": 0.1, "gradient_accumulation_steps": 2, "batch_size": 3, "lora_r": 96}
    whole = QLoRAFineTuner(settings(tmp_path / "whole", **more), data)
    whole.train()
    stopped = QLoRAFineTuner(settings(tmp_path / "stopped", **more), data)

    stopped._prepare()
    stopped.trainer.add_callback(StopAfter(3, stopped.trainer))
    with pytest.raises(Interrupted):
        stopped.train()
    again = QLoRAFineTuner(settings(tmp_path / "stopped", **more), data)
    again.train(resume=True)
    assert again.history == whole.history
    ours = dict(whole.model.named_parameters())
    for name, p in again.model.named_parameters():
        if p.requires_grad:
            assert torch.equal(p, ours[name]), name
    states = [t.trainer.optimizer for t in (whole, again)]
    states = [getattr(o, "optimizer", o).state for o in states]
    for mine, theirs in zip(states[0].values(), states[1].values(), strict=True):
        for key, value in mine.items():
            if isinstance(value, torch.Tensor):
                assert torch.equal(value, theirs[key]), key
    if "8bit" in optim:
        assert any(
            v.dtype == torch.uint8 for s in states[0].values() for v in s.values() if isinstance(v, torch.Tensor)
        )


class StopAfter(TrainerCallback):
    def __init__(self, step, trainer):
        self.step, self.trainer = step, trainer

    def on_step_end(self, args, state, control, **kwargs):
        self.trainer.interrupted = state.global_step >= self.step


def test_gradient_checkpointing_is_on_and_changes_no_loss(rows, tmp_path):
    losses = []
    for on in (True, False):
        config = settings(tmp_path / str(on), "tiny-deepseek-v3.2", use_gradient_checkpointing=on, max_steps=3)
        tuner = QLoRAFineTuner(config, {"train": rows})
        tuner.train()
        losses.append([entry["loss"] for entry in tuner.history if "loss" in entry])
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert QLoRAConfig().use_gradient_checkpointing


def test_it_trains_as_lora_on_the_base_written_out(rows, tmp_path, wide):
    """Quantising is all that QLoRA adds: on the dequantised base LoRA takes the same steps."""
    from ftkit.training.config import LoRAConfig
    from ftkit.training.lora import LoRAFineTuner

    base, tokenizer = load(wide("tiny-llama3"), dtype="float32", quantization=Quantization(), verbose=False)
    dequantize(base).save_pretrained(str(tmp_path / "written"))
    tokenizer.save_pretrained(str(tmp_path / "written"))
    common = dict(lora_r=4, learning_rate=1e-2, batch_size=4, max_steps=6, torch_dtype="float32", max_grad_norm=1.0)
    q = QLoRAFineTuner(
        QLoRAConfig(
            wide("tiny-llama3"),
            optim="adamw_torch",
            output_dir=str(tmp_path / "q"),
            gradient_accumulation_steps=1,
            **common,
        ),
        {"train": rows},
    )
    lora = LoRAFineTuner(
        LoRAConfig(str(tmp_path / "written"), output_dir=str(tmp_path / "l"), gradient_accumulation_steps=1, **common),
        {"train": rows},
    )
    q.train(), lora.train()
    pairs = [(a["loss"], b["loss"]) for a, b in zip(q.history, lora.history, strict=True) if "loss" in a]
    assert len(pairs) == 6 and all(a == pytest.approx(b, abs=1e-4) for a, b in pairs)


def test_without_bitsandbytes_one_sentence_or_a_stated_fallback(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingDependency, match="need bitsandbytes"):
        QLoRAFineTuner(settings(tmp_path / "run"))
    tuner = QLoRAFineTuner(settings(tmp_path / "run", load_in_4bit=False, max_steps=2), {"train": rows})
    tuner.train()
    assert "The run goes on with adamw_torch." in capsys.readouterr().out


def test_what_is_wrong_is_refused_when_it_is_made(tmp_path):
    for field, value in (("bnb_4bit_quant_type", "int4"), ("bnb_4bit_compute_dtype", "half"), ("optim", "adam")):
        with pytest.raises(ConfigError, match=f"{field} must be one of"):
            QLoRAConfig(**{field: value})
    packing = {"bnb_4bit_quant_type": "fp4", "bnb_4bit_compute_dtype": "float32", "bnb_4bit_use_double_quant": False}
    for field, value in packing.items():
        with pytest.raises(ConfigError, match=f"{field}={value!r} means nothing where load_in_4bit is False"):
            QLoRAConfig(load_in_4bit=False, **{field: value})
    with pytest.raises(ConfigError, match="pickled"):
        QLoRAFineTuner(settings(tmp_path)).merge_and_save(tmp_path / "m", safe_serialization=False)


def test_the_guides_fields_are_all_there():
    fields = (
        *("model_name trust_remote_code load_in_4bit bnb_4bit_compute_dtype bnb_4bit_quant_type").split(),
        *("bnb_4bit_use_double_quant lora_r lora_alpha lora_dropout target_modules modules_to_save").split(),
        *("learning_rate weight_decay num_epochs batch_size gradient_accumulation_steps max_grad_norm").split(),
        *("warmup_ratio lr_scheduler_type optim data_dir max_seq_length output_dir save_steps eval_steps").split(),
        *("logging_steps save_total_limit project_name run_name use_wandb seed").split(),
    )
    assert len(set(fields)) == 31 and set(fields) <= set(QLoRAConfig.__dataclass_fields__)
    guide = {"batch_size": 4, "gradient_accumulation_steps": 8, "max_grad_norm": 0.3, "optim": "paged_adamw_8bit"}
    made = QLoRAConfig()
    assert {name: getattr(made, name) for name in guide} == guide
    assert (made.trust_remote_code, made.use_wandb, made.modules_to_save, made.lora_dropout) == (
        False,
        False,
        None,
        0.0,
    )
    assert made.lora_alpha == 2 * made.lora_r and made.learning_rate == 2e-4
    methods = "load_model_and_tokenizer load_data create_trainer train merge_and_save".split()
    private = "_validate_config _get_quantization_config _print_model_info".split()
    assert all(callable(getattr(QLoRAFineTuner, name)) for name in methods + private)


def test_the_record_says_how_the_base_was_held(rows, tmp_path):
    tuner = QLoRAFineTuner(settings(tmp_path / "run", max_steps=2), {"train": rows})
    tuner.train()
    record = json.loads((tmp_path / "run" / RUN_FILE).read_text())
    assert record["config"]["load_in_4bit"] and record["config"]["bnb_4bit_quant_type"] == "nf4"
    assert base_record.read(tmp_path / "run").quantization == Quantization("nf4", True, "float32")


def test_it_loads_in_a_process_that_never_imported_ftkit(rows, tmp_path, wide):
    base = wide("tiny-llama3")
    tuner = QLoRAFineTuner(settings(tmp_path / "run", base, torch_dtype="float32", max_steps=3), {"train": rows})
    tuner.train()
    code = f"""
import sys, torch, bitsandbytes as bnb
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
packing = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
base = AutoModelForCausalLM.from_pretrained({base!r}, dtype=torch.float32, quantization_config=packing)
model = PeftModel.from_pretrained(base, {str(tmp_path / "run")!r}).eval()
for module in model.modules():
    if isinstance(module, bnb.nn.Linear4bit):
        module.support_avx512bf16_for_cpu = False
with torch.no_grad():
    torch.save(model(torch.arange(20)[None] + 30).logits, {str(tmp_path / "logits")!r})
assert not any(name.startswith("ftkit") for name in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits"), logits(tuner.model), atol=1e-5, rtol=1e-5)
