"""Predicted against measured: real training steps on tiny models wide enough that constants do not dominate."""

import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from ftkit.loss import CHUNK_LOGITS
from ftkit.memory import activations
from ftkit.memory.activations import Step, checkpoints, logits_saved, outside
from ftkit.memory.catalogue import architecture
from ftkit.memory.comparison import DENSE, MIXED, RANK, Comparison, compare, widened
from ftkit.memory.describe import describe
from ftkit.memory.estimator import estimate
from ftkit.memory.measure import measure_step
from ftkit.methods.lora import attach_lora
from ftkit.models import Quantization, load
from ftkit.models.loading import quantize_model
from ftkit.training.collator import Collator

LENGTHS = (64, 50, 40, 30)  # 4 x 64 tokens, some of them padding


def rows_of(lengths):
    draw = random.Random(0)
    ids = [[draw.randrange(250) for _ in range(n)] for n in lengths]
    return Collator(pad_token_id=0)(
        [{"input_ids": i, "labels": [-100] * (len(i) // 2) + i[len(i) // 2 :]} for i in ids]
    )


def step(name, method, *, lengths=LENGTHS, **settings):
    return compare(name, method, rows_of(lengths), **settings)


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
    found = step(name, method, **settings)
    low, high = found.saved
    assert 0.95 * found.measured.saved <= low <= high <= 1.05 * found.measured.saved


@pytest.mark.parametrize(
    "settings", [{}, {"dtype": torch.bfloat16}, {"lengths": (64,) * 4}], ids=["plain", "bf16", "even"]
)
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", MIXED)
def test_activations_of_experts_and_latent_attention_are_within_bounds(name, method, settings):
    found = step(name, method, **settings)
    low, high = found.saved
    assert low <= found.measured.saved <= high <= 1.5 * low


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_parameters_gradients_and_optimizer_are_exact(name, method):
    found = step(name, method)
    a, measured = found.architecture, found.measured
    run = estimate(a, method=method, rank=RANK, precision="float32", optimizer="adamw")
    parts = run.components
    buffers = 4 * a.buffers
    assert measured.parameters == parts["weights"] + parts["embeddings"] + parts["adapters"] - buffers
    assert measured.gradients == measured.trainable == parts["gradients"]
    assert measured.optimizer == parts["optimizer"]


@pytest.mark.parametrize("name", DENSE)
def test_dropout_keeps_a_copy_and_a_mask_for_each_lora(name):
    found = step(name, "lora", lora_dropout=0.1)
    assert found.saved[0] == pytest.approx(found.measured.saved, rel=0.05)
    assert found.saved[0] > 1.2 * step(name, "lora").saved[0]


@pytest.mark.parametrize("name", DENSE)
def test_a_frozen_a_keeps_no_inputs(name):
    found = step(name, "lora", frozen_a=True)
    assert found.saved[0] == pytest.approx(found.measured.saved, rel=0.05)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE)
def test_checkpointing_holds_the_layers_inputs(name, method):
    found = step(name, method, checkpointing=True)
    a, described, measured = found.architecture, found.step, found.measured
    predicted = checkpoints(a, described) + outside(a, described) + logits_saved(a, described)
    assert predicted == pytest.approx(measured.held, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_the_peak_of_a_step_is_within_the_bounds(name, method, checkpointing):
    found = step(name, method, checkpointing=checkpointing)
    low, high = found.peak
    assert low <= found.measured.peak <= high


def test_what_is_saved_does_not_depend_on_what_was_trained_before():
    model = AutoModelForCausalLM.from_config(widened("tiny-llama3"))
    batch = rows_of(LENGTHS)
    optimizer = torch.optim.AdamW(model.parameters())
    first = measure_step(model, batch, optimizer)
    optimizer.zero_grad()
    assert measure_step(model, batch, optimizer) == first


def test_chunks_are_those_of_the_loss(monkeypatch):
    assert activations.CHUNK_LOGITS == CHUNK_LOGITS
    whole = step("tiny-llama3", "lora").measured.peak
    for module in ("ftkit.loss", "ftkit.memory.activations"):
        monkeypatch.setattr(f"{module}.CHUNK_LOGITS", 4096)  # 15 positions of this vocabulary
    found = step("tiny-llama3", "lora")
    logits = activations.logits(found.architecture, found.step)
    assert 15 * found.architecture.vocabulary * 4 == logits[0] < whole
    low, high = found.peak
    assert low <= found.measured.peak <= high


def test_the_embedded_model_keeps_what_is_predicted():
    model, _ = load("embedded", device="cpu", dtype="float32", verbose=False)
    model, a, batch = attach_lora(model, r=RANK, lora_alpha=16), architecture("embedded"), rows_of(LENGTHS)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, batch, optimizer)
    labels = int((batch["labels"] != -100).sum())
    described = Step(4, 64, full=False, rank=RANK, compute=4, trained_tokens=labels, cuda=False)
    assert Comparison(a, described, measured).saved[0] == pytest.approx(measured.saved, rel=0.05)
    parts = estimate("embedded", method="lora", rank=RANK, precision="float32").components
    assert measured.parameters == parts["weights"] + parts["embeddings"] + parts["adapters"]
    assert measured.optimizer == parts["optimizer"]


@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("name", DENSE + MIXED)
def test_qloras_parameters_adapters_gradients_and_optimizer_are_exact(name, double):
    """On the base in 4 bits that training really loads, its experts among it, with the 8-bit optimizer."""
    import bitsandbytes as bnb

    torch.manual_seed(0)
    plain = AutoModelForCausalLM.from_config(widened(name), dtype=torch.float32)
    a = describe(plain.config)
    base = quantize_model(plain, Quantization(use_double_quant=double), dtype="bfloat16")
    model = attach_lora(base, r=RANK, lora_alpha=16)
    optimizer = bnb.optim.PagedAdamW8bit([p for p in model.parameters() if p.requires_grad])
    measured = measure_step(model, rows_of(LENGTHS), optimizer)
    parts = estimate(a, method="qlora", rank=RANK, double_quantization=double).components
    weights = parts["quantized_weights"] + parts["weights"] + parts["embeddings"]
    assert measured.parameters == weights + parts["adapters"] - 4 * a.buffers
    assert measured.gradients == measured.trainable == parts["gradients"] == parts["adapters"]
    assert measured.optimizer == parts["optimizer"]
    # And it is in 4 bits: near a quarter of the bytes of bfloat16, 4.127 or 4.5 of 16 bits.
    share = 0.26 if double else 0.2825
    assert parts["quantized_weights"] < share * 2 * sum(
        s.total for s in a.shapes if s.kind in ("linear", "expert", "indexer")
    )
