"""Predicted against measured: real training steps on tiny models wide enough that constants do not dominate."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftkit.loss import CHUNK_TOKENS
from ftkit.memory import activations
from ftkit.memory.activations import Step, checkpoints, logits, logits_saved, outside, saved_for_backward, transients
from ftkit.memory.catalogue import architecture
from ftkit.memory.describe import describe
from ftkit.memory.estimator import estimate
from ftkit.memory.measure import measure_step
from ftkit.methods.lora import attach_lora
from ftkit.models import Quantization, load
from ftkit.models.loading import quantize_model
from ftkit.models.tiny import build_config
from ftkit.training.collator import Collator

DENSE = ("tiny-llama3", "tiny-qwen3", "tiny-gemma3", "tiny-smollm")
MIXED = ("tiny-qwen3-moe", "tiny-deepseek-v3", "tiny-deepseek-v3.2", "tiny-llama4")
RANK = 8
LENGTHS = (64, 50, 40, 30)  # 4 x 64 tokens, some of them padding


def wide_config(name: str):
    """The tiny model's configuration at hidden width 256; 288 for SmolLM, whose six heads divide it."""
    config = build_config(name)
    widths = {"hidden_size": 288 if name == "tiny-smollm" else 256, "intermediate_size": 640, "head_dim": 48}
    if "deepseek" in name:
        widths |= {"q_lora_rank": 96, "kv_lora_rank": 64, "moe_intermediate_size": 128, "head_dim": 16}
        widths |= {"qk_nope_head_dim": 32, "qk_rope_head_dim": 16, "qk_head_dim": 48, "v_head_dim": 32}
    if name == "tiny-qwen3-moe":
        widths |= {"moe_intermediate_size": 128}
    if name == "tiny-llama4":
        widths |= {"intermediate_size": 128, "intermediate_size_mlp": 640}
    for key, value in widths.items():
        setattr(config, key, value)
    return config


def rows_of(lengths):
    draw = random.Random(0)
    ids = [[draw.randrange(250) for _ in range(n)] for n in lengths]
    return Collator(pad_token_id=0)(
        [{"input_ids": i, "labels": [-100] * (len(i) // 2) + i[len(i) // 2 :]} for i in ids]
    )


def step(name, method, *, dtype=torch.float32, lengths=LENGTHS, checkpointing=False, attention="sdpa", **other):
    """(architecture, the step as the formulas see it, what was measured)."""
    config, batch = wide_config(name), rows_of(lengths)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attention)
    a = describe(config)
    if method == "lora":
        model = attach_lora(model, r=RANK, lora_alpha=16, lora_dropout=other.pop("lora_dropout", 0.0))
    if other.pop("frozen_a", False):
        for parameter_name, parameter in model.named_parameters():
            if "lora_A" in parameter_name:
                parameter.requires_grad_(False)
        other["frozen_a"] = True
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if method == "lora":
            model.enable_input_require_grads()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, batch, optimizer, autocast=other.get("autocast", False))
    described = Step(
        batch_size=len(lengths),
        sequence_length=max(lengths),
        full=method == "full",
        rank=RANK,
        compute=2 if other.get("autocast") else dtype.itemsize,
        attention=attention,
        padded=len(set(lengths)) > 1,
        checkpointing=checkpointing,
        trained_tokens=int((batch["labels"] != -100).sum()),
        cuda=False,
        **other,
    )
    return a, described, measured


def saved(a, described) -> tuple[float, float]:
    low, high = saved_for_backward(a, described)
    return low + logits_saved(a, described), high + logits_saved(a, described)


SETTINGS = {
    "plain": {},
    "bf16": {"dtype": torch.bfloat16},
    "autocast": {"autocast": True},
    "even rows": {"lengths": (64,) * 4},
    "eager": {"attention": "eager"},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE)
def test_activations_of_dense_families_are_within_5_percent(name, method, settings):
    if "autocast" in settings and method == "lora":  # adapters in float32 on a bf16 base, as on a GPU
        settings = settings | {"dtype": torch.bfloat16}
    a, described, measured = step(name, method, **settings)
    low, high = saved(a, described)
    assert 0.95 * measured.saved <= low <= high <= 1.05 * measured.saved


@pytest.mark.parametrize(
    "settings", [{}, {"dtype": torch.bfloat16}, {"lengths": (64,) * 4}], ids=["plain", "bf16", "even"]
)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MIXED)
def test_activations_of_experts_and_latent_attention_are_within_bounds(name, method, settings):
    a, described, measured = step(name, method, **settings)
    low, high = saved(a, described)
    assert low <= measured.saved <= high <= 1.5 * low


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_parameters_gradients_and_optimizer_are_exact(name, method):
    a, _, measured = step(name, method)
    run = estimate(a, method=method, rank=RANK, precision="float32", optimizer="adamw")
    parts = run.components
    buffers = 4 * a.buffers
    assert measured.parameters == parts["weights"] + parts["embeddings"] + parts["adapters"] - buffers
    assert measured.gradients == measured.trainable == parts["gradients"]
    assert measured.optimizer == parts["optimizer"]


@pytest.mark.parametrize("name", DENSE)
def test_dropout_keeps_a_copy_and_a_mask_for_each_lora(name):
    a, described, measured = step(name, "lora", lora_dropout=0.1)
    described = Step(**(vars(described) | {"dropout": True}))
    assert saved(a, described)[0] == pytest.approx(measured.saved, rel=0.05)
    _, without, _ = step(name, "lora")
    assert saved(a, described)[0] > 1.2 * saved(a, without)[0]


@pytest.mark.parametrize("name", DENSE)
def test_a_frozen_a_keeps_no_inputs(name):
    a, described, measured = step(name, "lora", frozen_a=True)
    assert saved(a, described)[0] == pytest.approx(measured.saved, rel=0.05)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE)
def test_checkpointing_holds_the_layers_inputs(name, method):
    a, described, measured = step(name, method, checkpointing=True)
    predicted = checkpoints(a, described) + outside(a, described) + logits_saved(a, described)
    assert predicted == pytest.approx(measured.held, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_the_peak_of_a_step_is_within_the_bounds(name, method, checkpointing):
    a, described, measured = step(name, method, checkpointing=checkpointing)
    low, high = saved_for_backward(a, described)
    loss = logits(a, described)
    assert low + loss[0] <= measured.peak <= high + loss[1] + transients(a, described) + measured.gradients


def test_what_is_saved_does_not_depend_on_what_was_trained_before():
    model = AutoModelForCausalLM.from_config(wide_config("tiny-llama3"))
    batch = rows_of(LENGTHS)
    optimizer = torch.optim.AdamW(model.parameters())
    first = measure_step(model, batch, optimizer)
    optimizer.zero_grad()
    assert measure_step(model, batch, optimizer) == first


def test_chunks_are_those_of_the_loss():
    assert activations.CHUNK_TOKENS == CHUNK_TOKENS
    lengths = (320, 310, 300, 320)  # 625 trained positions: two chunks
    a, described, measured = step("tiny-llama3", "lora", lengths=lengths)
    assert described.labels > CHUNK_TOKENS
    # Recomputed chunks keep their hidden states.
    predicted = saved(a, described)[0] + 4 * described.labels * a.hidden
    assert predicted == pytest.approx(measured.held, rel=0.05)


def test_the_embedded_model_keeps_what_is_predicted():
    model, _ = load("embedded", device="cpu", dtype="float32", verbose=False)
    model, a, batch = attach_lora(model, r=RANK, lora_alpha=16), architecture("embedded"), rows_of(LENGTHS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, batch, optimizer)
    labels = int((batch["labels"] != -100).sum())
    described = Step(4, 64, full=False, rank=RANK, compute=4, trained_tokens=labels, cuda=False)
    assert saved(a, described)[0] == pytest.approx(measured.saved, rel=0.05)
    parts = estimate("embedded", method="lora", rank=RANK, precision="float32").components
    assert measured.parameters == parts["weights"] + parts["embeddings"] + parts["adapters"]
    assert measured.optimizer == parts["optimizer"]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_qloras_parameters_adapters_gradients_and_optimizer_are_exact(name, double):
    """On the base in 4 bits that training really loads, its experts among it, with the 8-bit optimizer."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(wide_config(name), dtype=torch.float32)
    a = describe(plain.config)
    base = quantize_model(plain, Quantization(use_double_quant=double), dtype="bfloat16")
    model = attach_lora(base, r=RANK, lora_alpha=16)
    optimizer = bnb.optim.PagedAdamW8bit([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, rows_of(LENGTHS), optimizer)
    parts = estimate(a, method="qlora", rank=RANK, double_quantization=double, quantize_experts=True).components
    weights = parts["quantized_weights"] + parts["weights"] + parts["embeddings"]
    assert measured.parameters == weights + parts["adapters"] - 4 * a.buffers
    assert measured.gradients == measured.trainable == parts["gradients"] == parts["adapters"]
    assert measured.optimizer == parts["optimizer"]
    # And it is in 4 bits: near a quarter of the bytes of bfloat16, 4.127 or 4.5 of 16 bits.
    share = 0.26 if double else 0.2825
    assert parts["quantized_weights"] < share * 2 * sum(
        s.total for s in a.shapes if s.kind in ("linear", "expert", "indexer")
    )
