"""Fine-tuning as a bare loop: what a trainer does between the first batch and the last, and nothing else."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ftkit.scratch.adamw import AdamW, decayed_and_plain

Batch = Mapping[str, torch.Tensor]


def summed_loss(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of the batch's trained tokens, summed; a label of -100 is not trained."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # Position t predicts token t + 1.
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch["labels"][:, 1:].flatten(), reduction="sum"
    )


def rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Learning rate of the 0-based `step`: up from 0 to `peak` over `warmup` steps, then down to 0 at `steps`."""
    if step < warmup:
        return peak * step / warmup
    return peak * (steps - step) / (steps - warmup)


@torch.no_grad()
def clip(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """Scale all gradients down together where their common norm exceeds `max_norm`; returns the norm before."""
    norm = torch.stack([p.grad.norm() for p in parameters]).norm()
    for p in parameters:
        p.grad *= (max_norm / (norm + 1e-6)).clamp(max=1.0)
    return norm.item()


def train(
    model: nn.Module,
    batches: Sequence[Batch],
    *,
    learning_rate: float,
    warmup: int = 0,
    accumulation: int = 1,
    weight_decay: float = 0.01,
    max_grad_norm: float = 1.0,
) -> list[float]:
    """One optimizer step for every `accumulation` batches; returns each step's loss, a mean over its trained tokens."""
    groups = decayed_and_plain(model)
    optimizer, trained = AdamW(*groups, weight_decay), groups[0] + groups[1]
    steps = [batches[i : i + accumulation] for i in range(0, len(batches), accumulation)]
    losses = []
    for step, group in enumerate(steps):
        tokens = sum((batch["labels"][:, 1:] != -100).sum() for batch in group)
        loss = 0.0
        for batch in group:
            part = summed_loss(model, batch) / tokens  # of the whole step: every token weighs the same
            part.backward()  # adds to what the batches before left in .grad
            loss += part.item()
        clip(trained, max_grad_norm)
        optimizer.step(rate(step, len(steps), learning_rate, warmup))
        model.zero_grad()
        losses.append(loss)
    return losses
