"""A task that a tiny model can learn in seconds: copy a word, then write it in a cipher that was never seen before.

A row is a word of `WORD` letters, a mark, and the word again, each letter replaced by the cipher's. A model that was
trained whole to copy (the cipher that changes nothing) is what adapters start from; another cipher is the shift they
must learn. Nothing here says what a method does at the size of a language model.
"""

import math
from collections.abc import Callable, Iterable

import torch
from torch import nn

LETTERS, WORD = 64, 4
MARK = LETTERS
VOCABULARY = LETTERS + 1


def cipher(seed: int | None = None) -> torch.Tensor:
    """Which letter stands for which, (LETTERS,); None is the one that changes nothing."""
    if seed is None:
        return torch.arange(LETTERS)
    return torch.randperm(LETTERS, generator=torch.Generator().manual_seed(seed))


def words(n: int, seed: int) -> torch.Tensor:
    """`n` random words, (n, WORD)."""
    return torch.randint(LETTERS, (n, WORD), generator=torch.Generator().manual_seed(seed))


def rows(word: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Ids of words, mark and answers, (n, 2 WORD + 1)."""
    return torch.cat([word, torch.full((len(word), 1), MARK), key[word]], dim=1)


def loss(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood of the answers' letters; the model computes no loss of its own."""
    logits = model(input_ids=ids, use_cache=False).logits[:, WORD:-1]
    return nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, WORD + 1 :].flatten())


@torch.no_grad()
def accuracy(model: nn.Module, ids: torch.Tensor) -> float:
    """Share of the answers' letters that are the model's first choice."""
    logits = model(input_ids=ids, use_cache=False).logits[:, WORD:-1]
    return (logits.argmax(-1) == ids[:, WORD + 1 :]).float().mean().item()


def fit(
    model: nn.Module,
    groups: Iterable,
    key: torch.Tensor,
    *,
    steps: int,
    seed: int,
    lr: float | None = None,
    batch: int = 32,
    before: Callable[[int], None] = lambda step: None,
    after: Callable[[int], None] = lambda step: None,
) -> list[float]:
    """AdamW on fresh words for `steps` steps; returns the losses.

    The rate rises over the first tenth and falls to 0 along a cosine. Gradients are not clipped: a run with a smaller
    scale and larger gradients then stays the same run.

    Args:
        groups: parameters, or AdamW's groups with their own rates.
        lr: rate of the groups that name none.
        before, after: called around each optimizer step with its number, from 1.
    """
    optimizer = torch.optim.AdamW(groups, lr=lr or 1e-3, betas=(0.9, 0.95), weight_decay=0.0)
    warmup = max(1, steps // 10)

    def course(done: int) -> float:
        return (
            (done + 1) / warmup if done < warmup else (1 + math.cos(math.pi * (done - warmup) / (steps - warmup))) / 2
        )

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, course)
    losses = []
    for step in range(1, steps + 1):
        value = loss(model, rows(words(batch, seed * 1_000_003 + step), key))
        value.backward()
        before(step)
        optimizer.step()
        after(step)
        optimizer.zero_grad()
        schedule.step()
        losses.append(value.item())
    return losses
