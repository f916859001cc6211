"""Checks a reader's answers to the exercise of the introduction."""

from collections.abc import Callable

_LAYERS = ([(4096, 4096)], [(8192, 1024), (8192, 28672), (28672, 8192)], [(576, 192)] * 5)


def check_share(share: Callable[[list[tuple[int, int]], int], float]) -> str:
    """Check `share(layers, r)`, the trained share when each linear layer gets a pair of matrices of rank r.

    Args:
        share: takes the layers as `(d_in, d_out)` and the rank; returns the pairs' numbers over those of the layers.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first case that is wrong.
    """
    for layers in _LAYERS:
        for r in (1, 8, 64):
            right = sum(r * (d_in + d_out) for d_in, d_out in layers) / sum(a * b for a, b in layers)
            answer = share(layers, r)
            if not isinstance(answer, int | float):
                return f"Not yet: share must return a number, but returned {type(answer).__name__}."
            if abs(answer - right) > 1e-9:
                d_in, d_out = layers[0]
                square = " Is every layer square?" if len(layers) > 1 else ""
                return (
                    f"Not yet: for {len(layers)} layers, the first {d_in} to {d_out}, at r={r} it is {right:.5f}, not "
                    f"{answer:.5f}.{square}"
                )
    return "Right: a small share of each layer, and the smaller the larger the layer is."
