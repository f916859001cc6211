"""Delta-LoRA: the telescoping sum, what is saved, its start, its float32 weight, and the control that it needs."""

import math

import pytest
import torch
from peft import PeftModel

from ftkit.errors import ConfigError
from ftkit.methods import rank_2r
from ftkit.methods.by_name import attach

RATIO, STEPS = 1.5, 6


def train(adapter, lab, steps=STEPS, lr=1e-2, seen=None):
    """A loop with Adam whose steps do not depend on the gradient's size."""
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr, eps=1e-16)
    losses = []
    adapter.model.train()
    adapter.begin(steps)
    for step in range(1, steps + 1):
        loss = adapter.model(lab.ids, labels=lab.ids).loss
        loss.backward()
        adapter.before_step(step)
        optimizer.step()
        adapter.after_step(step)
        optimizer.zero_grad()
        losses.append(loss.item())
        if seen is not None:
            seen(step)
    return losses


def weights(adapter):
    return {n: m.get_base_layer().weight.detach().clone() for n, m in rank_2r.lora_layers(adapter.model).items()}


def product(layer):
    A, B = rank_2r.factors(layer)
    return rank_2r.scaling(layer) * B @ A


@pytest.mark.parametrize("start", [0, 2])
def test_the_steps_telescope_to_a_change_of_rank_2r_at_most(lab, start):
    adapter = lab.production("delta-lora", delta_lora_start_step=start, delta_lora_ratio=RATIO)
    before, at_start = weights(adapter), {}

    def seen(step):
        if step == max(start, 1) and start:
            at_start.update({n: product(m).clone() for n, m in rank_2r.lora_layers(adapter.model).items()})
            assert all(torch.equal(w, before[n]) for n, w in weights(adapter).items())  # nothing moves up to K

    train(adapter, lab, seen=seen)
    after = weights(adapter)
    for name, layer in rank_2r.lora_layers(adapter.model).items():
        moved = after[name] - before[name]
        expected = RATIO * (product(layer) - at_start.get(name, 0))
        torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)
        assert moved.abs().max() > 1e-2
        ranks = torch.linalg.matrix_rank(expected.double(), rtol=1e-5)
        assert ranks <= (2 if start else 1) * lab.R


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("start", [0, 2])
def test_it_is_saved_as_an_ordinary_adapter_of_rank_2r(lab, tmp_path, start, use_rslora):
    adapter = lab.production("delta-lora", delta_lora_start_step=start, use_rslora=use_rslora)
    train(adapter, lab)
    adapter.save(str(tmp_path))
    plain = PeftModel.from_pretrained(lab.base(), tmp_path)
    config = plain.peft_config["default"]
    assert config.r == 2 * lab.R and not config.use_rslora
    scale = lab.ALPHA / (math.sqrt(lab.R) if use_rslora else lab.R)
    assert config.lora_alpha == pytest.approx(2 * lab.R * scale)
    torch.testing.assert_close(lab.logits(plain), lab.logits(adapter.model), atol=1e-5, rtol=1e-5)


def test_before_its_start_it_is_saved_as_the_lora_it_is(lab, tmp_path):
    adapter = lab.production("delta-lora", delta_lora_start_step=STEPS - 1)
    train(adapter, lab, seen=lambda step: step == 3 and adapter.save(str(tmp_path)))
    lora = lab.production("lora")
    train(lora, lab, steps=3)
    plain = PeftModel.from_pretrained(lab.base(), tmp_path)
    torch.testing.assert_close(lab.logits(plain), lab.logits(lora.model), atol=1e-5, rtol=1e-5)


def test_from_step_0_it_is_lora_with_the_matched_alpha(lab):
    losses = train(lab.production("delta-lora", delta_lora_start_step=0, delta_lora_ratio=RATIO), lab, steps=20)
    control = train(lab.production("lora", lora_alpha=lab.ALPHA * (1 + RATIO)), lab, steps=20)
    plain = train(lab.production("lora"), lab, steps=20)
    assert losses == pytest.approx(control, rel=1e-4)
    assert losses != pytest.approx(plain, rel=1e-2)


def test_with_a_later_start_it_is_not(lab):
    losses = train(lab.production("delta-lora", delta_lora_start_step=3, delta_lora_ratio=RATIO), lab, steps=20)
    control = train(lab.production("lora", lora_alpha=lab.ALPHA * (1 + RATIO)), lab, steps=20)
    assert losses != pytest.approx(control, rel=1e-3)


def test_a_narrower_base_loses_no_step_to_rounding(lab):
    """The base moves to the rounded sum; most of the single updates of this size would be rounded away."""
    adapter = attach(lab.base().bfloat16(), "delta-lora", r=4, delta_lora_start_step=0)
    before, products = weights(adapter), {}
    one_by_one = {name: weight.clone() for name, weight in before.items()}

    def seen(step):
        for name, layer in rank_2r.lora_layers(adapter.model).items():
            now = product(layer).clone()
            one_by_one[name] += (adapter.ratio * (now - products.get(name, 0))).bfloat16()
            products[name] = now

    train(adapter, lab, steps=30, lr=1e-4, seen=seen)
    for name, layer in rank_2r.lora_layers(adapter.model).items():
        weight = layer.get_base_layer().weight
        assert weight.dtype == torch.bfloat16
        exact = before[name].float() + adapter.ratio * product(layer)
        assert torch.equal(adapter.master[name].bfloat16(), weight)
        torch.testing.assert_close(adapter.master[name], exact, atol=1e-6, rtol=0)
        moved = (exact - before[name].float()).abs().mean()
        assert (weight.float() - exact).abs().mean() < 0.2 * moved
        assert (one_by_one[name].float() - exact).abs().mean() > 0.5 * moved


def test_from_step_0_a_resume_keeps_the_start_of_the_checkpoint(lab, tmp_path):
    """A trainer reads the checkpoint into a fresh model first and begins then; the start is that of the first run."""
    first = lab.production("delta-lora", delta_lora_start_step=0)
    train(first, lab)
    first.save_state(str(tmp_path))
    resumed = lab.production("delta-lora", delta_lora_start_step=0)
    resumed.restore(str(tmp_path))
    resumed.begin(STEPS)
    torch.testing.assert_close(lab.logits(resumed.model), lab.logits(first.model), atol=1e-5, rtol=1e-5)
    for name, (A, B) in first.start.items():
        assert torch.equal(resumed.start[name][0], A) and torch.equal(resumed.start[name][1], B) and not B.any()


@pytest.mark.parametrize("restored", [1, 4])
def test_a_checkpoint_from_before_or_after_the_start_is_restored(lab, tmp_path, restored):
    adapter = lab.production("delta-lora", delta_lora_start_step=2)
    logits = {}

    def seen(step):
        (tmp_path / str(step)).mkdir()
        adapter.save_state(str(tmp_path / str(step)))
        logits[step] = lab.logits(adapter.model)
        adapter.model.train()

    train(adapter, lab, seen=seen)
    adapter.restore(str(tmp_path / str(restored)))
    torch.testing.assert_close(lab.logits(adapter.model), logits[restored], atol=1e-5, rtol=1e-5)
    assert (logits[restored] - logits[STEPS]).abs().max() > 1e-2


def test_the_readable_version_moves_its_weight_alike(lab):
    ours, theirs = lab.scratch("delta-lora"), lab.production("delta-lora", delta_lora_start_step=0)
    lab.copy(theirs.model, ours)
    for layer in lab.layers(ours).values():
        layer.begin()
    theirs.begin(STEPS)
    for _ in range(2):
        lab.disturb(theirs.model)
        lab.copy(theirs.model, ours)
        theirs.after_step(1)
        for layer in lab.layers(ours).values():
            layer.step()
    layers = rank_2r.lora_layers(theirs.model)
    for name, layer in lab.layers(ours).items():
        torch.testing.assert_close(layer.base.weight, layers[name].get_base_layer().weight, atol=1e-6, rtol=1e-5)
        A, B = layer.as_lora()
        rebuilt = lab.base().get_submodule(name).weight + layer.scaling * B @ A
        torch.testing.assert_close(rebuilt, layer.base.weight + layer.update(), atol=1e-6, rtol=1e-5)


def test_a_run_that_ends_before_the_start_is_refused(lab):
    with pytest.raises(ConfigError, match="starts after step 500, but the run has 40 steps"):
        lab.production("delta-lora", delta_lora_start_step=500).begin(40)
