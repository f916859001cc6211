"""AdaLoRA: the budget at every step, the ranks in the end, the regulariser, and the readable version of each."""

import pytest
import torch

from ftkit.errors import ConfigError
from ftkit.methods.adalora import FINAL, WARMUP
from ftkit.methods.adapter import AdapterCallback
from ftkit.methods.registry import initial_rank
from ftkit.scratch.adalora import allocate, budget

STEPS = 20


def train(adapter, lab, seen, lr=1e-2):
    trained = [p for p in adapter.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=lr)
    adapter.begin(STEPS)
    for step in range(1, STEPS + 1):
        lab.gradients(adapter.model)
        adapter.before_step(step)
        optimizer.step()
        adapter.after_step(step)
        seen(step)


def left(model):
    """Ranks whose singular value is not zero."""
    return sum(int((p != 0).sum()) for name, p in model.named_parameters() if "lora_E" in name)


def test_the_ranks_follow_the_cubic_budget_at_every_step(lab):
    adapter = lab.production("adalora")
    layers = 7 * 2
    start, target = layers * initial_rank(lab.R), layers * lab.R
    plan = {"total": STEPS, "start": start, "target": target}
    plan |= {"warmup": int(WARMUP * STEPS), "final": int(FINAL * STEPS)}
    seen = []

    def check(step):
        seen.append(left(adapter.model))
        assert seen[-1] == adapter.ranks() == adapter.budget(step) == budget(step, **plan)

    train(adapter, lab, check)
    assert seen[0] == start and seen[-1] == target and seen == sorted(seen, reverse=True)
    assert len(set(seen)) > 5  # it shrinks bit by bit


def test_a_step_that_is_skipped_still_shrinks_the_ranks_and_teaches_nothing(lab):
    from types import SimpleNamespace

    adapter = lab.production("adalora")
    callback, trained = AdapterCallback(adapter), [p for p in adapter.model.parameters() if p.requires_grad]
    optimizer, state = torch.optim.Adam(trained, lr=1e-2), SimpleNamespace(max_steps=STEPS, global_step=0)
    callback.on_train_begin(None, state, None)
    for step in range(1, STEPS + 1):
        optimizer.zero_grad()
        if step not in (5, 6):  # on the way down
            lab.gradients(adapter.model)
        before = [p.detach().clone() for p in trained]
        callback.on_pre_optimizer_step(None, state, None)
        optimizer.step()
        if step in (5, 6):
            assert all(torch.equal(p, was) for p, was in zip(trained, before, strict=True))
        callback.on_optimizer_step(None, state, None)
        assert adapter.ranks() == adapter.budget(step)
        state.global_step = step


def test_the_saved_adapter_has_the_ranks_that_were_kept(lab, tmp_path):
    from ftkit.models import load

    adapter = lab.production("adalora")
    train(adapter, lab, lambda step: None)
    adapter.save(str(tmp_path))
    loaded, _ = load(str(tmp_path), verbose=False)
    stored = sum(p.numel() for name, p in loaded.named_parameters() if "lora_E" in name)
    assert stored == 7 * 2 * lab.R
    torch.testing.assert_close(lab.logits(loaded), lab.logits(adapter.model), atol=1e-5, rtol=1e-5)


def test_the_scale_is_alpha_over_the_rank_that_was_asked_for(lab):
    layer = next(m for m in lab.production("adalora").model.modules() if hasattr(m, "ranknum"))
    scale = layer.scaling["default"] / layer.ranknum["default"].item()
    assert scale == pytest.approx(lab.ALPHA / lab.R, rel=1e-5)


def test_the_regulariser_is_pefts_and_reaches_the_gradient_once(lab):
    adapter = lab.production("adalora")
    lab.disturb(adapter.model)
    plain = adapter.model.get_base_model()(lab.ids, labels=lab.ids).loss
    with_regulariser = adapter.model(lab.ids, labels=lab.ids).loss
    torch.testing.assert_close(with_regulariser - plain, adapter.regulariser())
    adapter.model.zero_grad()
    adapter.model(lab.ids, labels=lab.ids).loss.backward()
    theirs = {name: p.grad.clone() for name, p in adapter.model.named_parameters() if p.grad is not None}
    adapter.model.zero_grad()
    plain = adapter.model.get_base_model()(lab.ids, labels=lab.ids).loss
    plain.backward()
    adapter.before_step(1)
    for name, gradient in theirs.items():
        torch.testing.assert_close(adapter.model.get_parameter(name).grad, gradient, atol=1e-6, rtol=1e-4)


def test_the_readable_version_keeps_the_same_triplets(lab):
    theirs, ours = lab.production("adalora"), lab.scratch("adalora")
    lab.disturb(theirs.model)
    lab.copy(theirs.model, ours)
    allocator, layers = theirs.model.base_model.rankallocator, lab.layers(ours)
    for _ in range(3):
        lab.gradients(theirs.model), lab.gradients(ours)
        allocator.update_ipt(theirs.model.base_model.model)
        for layer in layers.values():
            layer.observe()
        lab.disturb(theirs.model, std=0.01)
        lab.copy(theirs.model, ours)
    allocator.mask_to_budget(theirs.model.base_model.model, 60)
    allocate(list(layers.values()), 60)
    assert sum(int((layer.E != 0).sum()) for layer in layers.values()) == left(theirs.model) == 60
    for name, layer in layers.items():
        assert torch.equal(layer.E != 0, lab.twin(name, theirs.model, "E")[:, 0] != 0)


def test_orthogonality_is_zero_for_singular_vectors():
    from torch import nn

    from ftkit.scratch.adalora import AdaLoRALinear

    layer = AdaLoRALinear(nn.Linear(6, 5), r=3, lora_alpha=3)
    assert layer.orthogonality() > 1
    U, _, Vh = torch.linalg.svd(torch.randn(5, 6), full_matrices=False)
    layer.P.data, layer.Q.data = U[:, :3].contiguous(), Vh[:3].contiguous()
    assert layer.orthogonality() < 1e-9


def test_a_run_that_is_too_short_is_refused(lab):
    with pytest.raises(ConfigError, match="at least 10 steps .* but the run has 4"):
        lab.production("adalora").begin(4)
