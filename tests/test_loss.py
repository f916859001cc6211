"""The loss against the plain one: all logits, one cross-entropy."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ftkit.loss import causal_lm_loss, trained_positions_only
from ftkit.memory.measure import Alive
from ftkit.models import load

FAMILIES = ["llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3.2", "gemma3", "gemma3-vision", "smollm"]


def plain(hidden, labels, head):
    logits = head(hidden)[:, :-1].float()
    return nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), reduction="sum")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**20), rows=st.integers(1, 4), length=st.integers(2, 9), chunk=st.integers(1, 12))
def test_equals_the_plain_loss_and_its_gradients_for_any_mask_and_chunk(seed, rows, length, chunk):
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(6, 11, bias=False, dtype=torch.float64)
    hidden = torch.randn(rows, length, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(11, (rows, length), generator=generator)
    labels[torch.rand(rows, length, generator=generator) < 0.5] = -100
    got, want = (hidden.clone().requires_grad_() for _ in range(2))
    loss = causal_lm_loss(got, labels, head, num_items_in_batch=7, chunk_tokens=chunk)
    reference = plain(want, labels, head) / 7
    torch.testing.assert_close(loss, reference.to(loss.dtype), atol=1e-6, rtol=1e-6)
    gradient = torch.autograd.grad(loss, [got, head.weight], allow_unused=True, retain_graph=True)
    expected = torch.autograd.grad(reference, [want, head.weight], allow_unused=True)
    torch.testing.assert_close(gradient[0], expected[0], atol=1e-6, rtol=1e-5)
    if (labels[:, 1:] != -100).any():
        torch.testing.assert_close(gradient[1], expected[1], atol=1e-6, rtol=1e-5)


def test_logits_of_any_size_have_their_loss_and_gradients():
    head, hidden = nn.Linear(4, 9, bias=False), 1e3 * torch.randn(1, 8, 4)  # exp(89) is infinite in float32
    labels = torch.randint(9, (1, 8))
    got, want = (hidden.clone().requires_grad_() for _ in range(2))
    ours, theirs = causal_lm_loss(got, labels, head, 1), plain(want, labels, head)
    assert head(hidden).abs().max() > 89 and ours > 89
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(torch.autograd.grad(ours, got), torch.autograd.grad(theirs, want))


def test_without_a_denominator_it_is_the_mean_over_trained_tokens():
    hidden, head = torch.randn(2, 5, 3), nn.Linear(3, 4)
    labels = torch.tensor([[0, 1, -100, 2, 3], [-100, -100, -100, -100, 1]])
    torch.testing.assert_close(causal_lm_loss(hidden, labels, head), plain(hidden, labels, head) / 4)


def test_a_batch_with_nothing_to_train_gives_zero_and_a_gradient():
    hidden = torch.randn(1, 3, 4, requires_grad=True)
    loss = causal_lm_loss(hidden, torch.full((1, 3), -100), nn.Linear(4, 5))
    loss.backward()
    assert loss.item() == 0 and not hidden.grad.any()


def test_a_batch_with_nothing_to_train_gives_the_head_a_gradient_too():
    # Under DDP a parameter without one would keep the other ranks waiting.
    head = nn.Linear(4, 5)
    causal_lm_loss(torch.randn(1, 3, 4), torch.full((1, 3), -100), head).backward()
    assert not head.weight.grad.any() and not head.bias.grad.any()


def gradients(loss, hidden, head) -> list[torch.Tensor]:
    return [g.float() for g in torch.autograd.grad(loss, [hidden, *head.parameters()])]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_kind_of_head_gets_its_gradients(dtype, softcap, bias):
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(16, 50, bias=bias, dtype=dtype)
    hidden = torch.randn(2, 20, 16, generator=generator).to(dtype).requires_grad_()
    labels = torch.randint(50, (2, 20), generator=generator)
    capped = head if softcap is None else lambda h: softcap * torch.tanh(head(h) / softcap)
    got = causal_lm_loss(hidden, labels, head, num_items_in_batch=38, softcap=softcap, chunk_tokens=5)
    want = plain(hidden, labels, capped) / 38
    tolerance = 1e-6 if dtype == torch.float32 else 1e-2  # of bf16's eight bits
    torch.testing.assert_close(got, want, atol=tolerance, rtol=tolerance)
    for ours, theirs in zip(gradients(got, hidden, head), gradients(want, hidden, head), strict=True):
        torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def test_under_autocast_it_equals_the_plain_loss_and_its_gradients():
    head, hidden = nn.Linear(16, 50, bias=False), torch.randn(2, 20, 16, requires_grad=True)
    labels = torch.randint(50, (2, 20))
    with torch.autocast("cpu", torch.bfloat16):
        got = causal_lm_loss(hidden, labels, head, chunk_tokens=7)
        want = plain(hidden, labels, head) / 38
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)
    for ours, theirs in zip(gradients(got, hidden, head), gradients(want, hidden, head), strict=True):
        assert ours.dtype == theirs.dtype == torch.float32
        torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=2e-2)  # of bf16


def test_a_sum_over_chunks_in_bf16_does_not_round_at_every_chunk():
    head, hidden = nn.Linear(8, 20, bias=False, dtype=torch.bfloat16), torch.randn(1, 400, 8).bfloat16()
    labels = torch.randint(20, (1, 400))
    exact = copy.deepcopy(head).float()
    plain(hidden.float(), labels, exact).backward()
    errors = []
    for chunk in (400, 1):
        head.zero_grad()
        causal_lm_loss(hidden, labels, head, num_items_in_batch=1, chunk_tokens=chunk).backward()
        errors.append((head.weight.grad.float() - exact.weight.grad).norm() / exact.weight.grad.norm())
    assert errors[1] < 1.5 * errors[0]


@pytest.mark.parametrize(
    ("dtype", "trained_head"), [(torch.float32, False), (torch.float32, True), (torch.bfloat16, False)]
)
def test_its_memory_is_below_a_tenth_of_the_plain_loss(dtype, trained_head):
    """1,024 tokens, a vocabulary of 131,072: all tensors that exist at once but the parameters and their gradients."""

    def peak(loss) -> int:
        head = nn.Linear(8, 131_072, bias=False, dtype=dtype).requires_grad_(trained_head)
        hidden = torch.randn(1, 1025, 8, dtype=dtype, requires_grad=True)
        labels = torch.zeros(1, 1025, dtype=torch.long)
        with Alive() as alive:
            loss(hidden, labels, head).backward()
        return alive.peak - (head.weight.grad.nbytes if trained_head else 0)

    with FakeTensorMode():  # tensors without storage: the plain loss would take 1.5 GiB
        theirs = peak(plain)
    assert theirs > 2 * 1024 * 131_072 * 4
    assert peak(causal_lm_loss) < theirs / 10


def test_a_factor_of_the_logits_is_refused():
    model, _ = load("tiny-llama3", verbose=False)
    model.config.logits_scaling = 8.0
    with pytest.raises(ValueError, match="logits_scaling=8.0"), trained_positions_only(model):
        pass


@pytest.mark.parametrize("family", FAMILIES)
def test_in_the_model_it_equals_the_models_own_loss(family):
    model, _ = load(f"tiny-{family}", verbose=False)
    ids = torch.arange(60).reshape(2, 30) % 200 + 10
    labels = ids.clone()
    labels[0, :12], labels[1, 20:] = -100, -100
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    if family == "gemma3-vision":
        batch["token_type_ids"] = torch.zeros_like(ids)
    own = model(**batch).loss
    with trained_positions_only(model):
        ours = model(**batch)
    assert set(ours) == {"loss"}
    torch.testing.assert_close(ours["loss"], own, atol=1e-6, rtol=1e-6)


def test_outside_the_block_the_model_is_as_it_was():
    model, _ = load("tiny-llama3", verbose=False)
    ids = torch.arange(10)[None] + 20
    before = model(ids).logits
    with trained_positions_only(model):
        torch.testing.assert_close(model(ids).logits, before)
    assert "forward" not in vars(model)
    torch.testing.assert_close(copy.deepcopy(model)(ids, labels=ids).logits, before)


def test_the_final_soft_cap_is_applied():
    model, _ = load("tiny-gemma3", verbose=False)
    model.config.final_logit_softcapping = 0.5
    ids = torch.arange(10)[None] + 20
    own = model(ids, labels=ids).loss
    with trained_positions_only(model):
        torch.testing.assert_close(model(ids, labels=ids)["loss"], own)
