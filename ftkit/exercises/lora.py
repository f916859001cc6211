"""Checks a reader's answers to the exercises on LoRA."""

from collections.abc import Callable

import torch
from torch import nn

from ftkit.scratch.lora import LoRALinear

Merge = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, float], torch.Tensor]


def check_merge(merge: Merge) -> str:
    """Check `merge(W, A, B, lora_alpha)`, the weight of one linear layer that does what base and LoRA do together.

    Args:
        merge: takes W (d_out, d_in), A (r, d_in), B (d_out, r) and lora_alpha; returns the merged weight.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    for d_out, d_in, r, lora_alpha in ((5, 7, 1, 1.0), (6, 4, 2, 16.0), (3, 9, 3, 2.0)):
        layer = LoRALinear(nn.Linear(d_in, d_out, bias=False), r, lora_alpha)
        for parameter in layer.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator)
        if wrong := _what_is_wrong(merge, layer, torch.randn(11, d_in, generator=generator), lora_alpha):
            return f"Not yet: {wrong}"
    return "Right: one layer now does the work of two, for every shape, rank and scale that was tried."


@torch.no_grad()
def _what_is_wrong(merge: Merge, layer: LoRALinear, x: torch.Tensor, lora_alpha: float) -> str | None:
    W, A, B = (t.detach().clone() for t in (layer.base.weight, layer.A, layer.B))
    try:
        merged = merge(W, A, B, lora_alpha)
    except RuntimeError as error:
        return f"torch says: {error}"
    if not isinstance(merged, torch.Tensor):
        return f"merge must return a tensor, but returned {type(merged).__name__}."
    if merged.shape != W.shape:
        return (
            f"W is {tuple(W.shape)}, A {tuple(A.shape)} and B {tuple(B.shape)}, so the merged weight must be "
            f"{tuple(W.shape)}; it is {tuple(merged.shape)}. In which order do A and B multiply?"
        )
    if not torch.equal(W, layer.base.weight):
        return "merge must return a new weight and leave W as it was."
    if torch.allclose(x @ merged.T, layer(x), atol=1e-4):
        return None
    for factor in (1.0, lora_alpha, lora_alpha * A.shape[0]):
        if torch.allclose(merged, W + factor * B @ A, atol=1e-4):
            return f"for r={A.shape[0]} and lora_alpha={lora_alpha:g} the update is scaled by {factor:g}."
    return "the merged layer answers otherwise than base and LoRA do together."
