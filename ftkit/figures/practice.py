"""Plots of runs beside one another; each function draws what it is given and returns the figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftkit.figures.style import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curves(
    runs: Mapping[str, Sequence[tuple[float, float]]], xlabel: str, ylabel: str, floor: float | None = None
) -> "Figure":
    """One line a run.

    Args:
        runs: name to points.
        xlabel, ylabel: what the axes show.
        floor: the best value that can be reached, drawn dotted.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.0, 3.2))
    for name, points in runs.items():
        axes.plot(*zip(*points, strict=True), label=name)
    if floor is not None:
        axes.axhline(floor, color=INK, linestyle=":", linewidth=1)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.legend()
    return figure
