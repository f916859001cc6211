"""Checks a reader's answers to the exercises on weights in 4 bits."""

import math
from collections.abc import Callable

import torch

from ftkit.scratch.nf4 import quantize_nf4

CASES = ((64, None), (64, 256), (128, None), (32, 128))


def check_bits(bits_of: Callable[[int, int | None], float]) -> str:
    """Check `bits_of(block, scale_block)`: bits a weight takes, with the scales of its block.

    Args:
        bits_of: takes the weights that share a scale, and the scales that share one of their own or None.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    for block, scale_block in CASES:
        scales = 32 / block if scale_block is None else 8 / block + 32 / (block * scale_block)
        found, right = bits_of(block, scale_block), 4 + scales
        if math.isclose(found, right, rel_tol=1e-9):
            continue
        case = f"for blocks of {block}" + (f" and {scale_block} scales to a scale" if scale_block else "")
        if math.isclose(found, 4):
            return f"Not yet: {case} the codes take 4 bits; what do the scales take, shared by {block} weights?"
        if scale_block and math.isclose(found, 4 + 8 / block + 32 / scale_block):
            return f"Not yet: {case}, how many weights share a scale of 32 bits? Not {scale_block}."
        if scale_block and math.isclose(found, 4 + 8 / block):
            return f"Not yet: {case} the scales of the scales are missing."
        return f"Not yet: {case} it is not {found!r}."
    return "Right: 4.5 bits at blocks of 64, and 4.127 when the scales are quantised again."


def check_merge(merge: Callable[..., torch.Tensor]) -> str:
    """Check `merge(W, A, B, scaling, quantize)`: the float weight of one layer that does what QLoRA trained.

    Args:
        merge: takes the original weight W (d_out, d_in), A (r, d_in), B (d_out, r), the factor alpha / r, and
            `quantize`, which returns the weight that the 4 bits of a weight stand for.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    generator = torch.Generator().manual_seed(0)

    def quantize(weight: torch.Tensor) -> torch.Tensor:
        return quantize_nf4(weight).dequantize()

    for d_out, d_in, r, scaling in ((64, 64, 2, 2.0), (32, 128, 4, 0.5)):
        W = torch.randn(d_out, d_in, generator=generator)
        A, B = torch.randn(r, d_in, generator=generator), torch.randn(d_out, r, generator=generator)
        try:
            found = merge(W.clone(), A.clone(), B.clone(), scaling, quantize)
        except (RuntimeError, TypeError) as error:
            return f"Not yet: {error}"
        update = scaling * B @ A
        wrong = {
            "that is the merge onto the original weight; which weight stood beside the adapter in training?": W
            + update,
            "rounding the sum to 4 bits once more changes what was trained.": quantize(W + update),
            "that rounds the sum again, after the right one was made.": quantize(quantize(W) + update),
            "the factor alpha / r is missing.": quantize(W) + B @ A,
            "that is the base alone, without the update.": quantize(W),
        }
        if found.shape != W.shape:
            return f"Not yet: the weight must have W's shape {tuple(W.shape)}; it has {tuple(found.shape)}."
        if not torch.allclose(found, quantize(W) + update, atol=1e-4):
            near = (why for why, weight in wrong.items() if torch.allclose(found, weight, atol=1e-4))
            return f"Not yet: {next(near, 'that is another function than the one that was trained.')}"
    return "Right: the update belongs to the weight that it was trained beside, the rounded one."
