"""Checks a reader's answers to the exercises on LoRA's variants."""

from collections.abc import Callable

import torch

Factors = tuple[torch.Tensor, torch.Tensor]
Export = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float], Factors]


def check_vera_count(count: Callable[[int, int, int, int], int]) -> str:
    """Check `count(layers, d_in, d_out, r)`: numbers that VeRA trains in so many layers of d_out x d_in.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    for layers, d_in, d_out, r in ((24, 768, 768, 16), (2, 512, 128, 64), (1, 64, 256, 1024)):
        answer, right = count(layers, d_in, d_out, r), layers * (d_out + r)
        if answer == right:
            continue
        case = f"{layers} layers of {d_out} x {d_in} at r={r}"
        if answer in (layers * (d_in + r), layers * (d_in + d_out + r)):
            return f"Not yet: for {case}, does any trained vector have d_in numbers?"
        if answer == layers * r * (d_in + d_out):
            return f"Not yet: for {case} that is LoRA's count; VeRA freezes A and B."
        if answer == d_out + r:
            return f"Not yet: for {case}, what do the layers share, and what has each of its own?"
        return f"Not yet: for {case} it is not {answer!r}."
    return "Right: b has d_out numbers and d has r, in each layer, and nothing else trains."


def check_export(export: Export) -> str:
    """Check `export(A, B, A_K, B_K, ratio)`: Delta-LoRA as one ordinary LoRA on the weight where training began.

    Args:
        export: takes A (r, d_in) and B (d_out, r) now, A_K and B_K at the start step, and lambda; returns A' and B'
            whose product, at the same scale, is the whole change of the layer.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    generator = torch.Generator().manual_seed(0)
    for d_out, d_in, r, ratio in ((5, 7, 2, 2.0), (6, 4, 1, 0.5)):
        A, A_K = torch.randn(2, r, d_in, generator=generator)
        B, B_K = torch.randn(2, d_out, r, generator=generator)
        try:
            found = export(A.clone(), B.clone(), A_K.clone(), B_K.clone(), ratio)
            product = found[1] @ found[0]
        except (RuntimeError, TypeError, IndexError) as error:
            return f"Not yet: {error}"
        if len(found[0]) > 2 * r:
            return f"Not yet: rank {2 * r} is enough, but A' has {len(found[0])} rows."
        # W_t - W_0 + BA, with the telescoping sum for the first part
        right = ratio * (B @ A - B_K @ A_K) + B @ A
        if product.shape != right.shape:
            return f"Not yet: B'A' must have W's shape {tuple(right.shape)}; it has {tuple(product.shape)}."
        if torch.allclose(product, ratio * (B @ A - B_K @ A_K), atol=1e-4):
            return "Not yet: that is how far W moved; the layer also adds BA beside it."
        if not torch.allclose(product, right, atol=1e-4):
            return "Not yet: B'A' is not lambda (BA - B_K A_K) + BA."
    return "Right: whatever W went through, an ordinary adapter of rank 2r says it all."
