"""The bare loop's parts against torch's and transformers'; the whole of it is in tests/training/test_agreement.py."""

import copy

import pytest
import torch
from torch import nn
from transformers import get_linear_schedule_with_warmup

from ftkit.scratch.adamw import AdamW, decayed_and_plain
from ftkit.scratch.training_loop import clip, rate


def test_adamw_is_torchs():
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2))
    theirs = copy.deepcopy(ours)
    mine = AdamW(*decayed_and_plain(ours), weight_decay=0.1)
    decayed, plain = decayed_and_plain(theirs)
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    torchs = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)
    for step in range(20):
        x, learning_rate = torch.randn(6, 5), 0.05 / (1 + step)
        for model in (ours, theirs):
            model.zero_grad()
            model(x).square().sum().backward()
        mine.step(learning_rate)
        for group in torchs.param_groups:
            group["lr"] = learning_rate
        torchs.step()
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_the_decay_is_decoupled_from_the_gradients_size():
    """Without a gradient a weight shrinks by rate times decay, whatever v holds; Adam with L2 would not do so."""
    weight = nn.Parameter(torch.ones(2, 2))
    optimizer = AdamW([weight], [], weight_decay=0.5)
    optimizer.v[weight].fill_(100.0)
    weight.grad = torch.zeros(2, 2)
    optimizer.step(0.1)
    torch.testing.assert_close(weight.data, torch.full((2, 2), 0.95))


@pytest.mark.parametrize("warmup", [0, 1, 3])
def test_the_rate_is_transformers_linear_schedule(warmup):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, 10)
    for step in range(10):
        assert rate(step, 10, 0.3, warmup) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("max_norm", [0.5, 100.0])
def test_clipping_is_torchs(max_norm):
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    for p in ours:
        p.grad = torch.randn_like(p)
    theirs = copy.deepcopy(ours)
    for p, q in zip(theirs, ours, strict=True):
        p.grad = q.grad.clone()
    norm = clip(ours, max_norm)
    assert norm == pytest.approx(nn.utils.clip_grad_norm_(theirs, max_norm).item())
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.grad, q.grad)
