"""Plots of a setting that was varied, with every seed's point, so that the spread is seen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftkit.figures.style import COLOURS, INK, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def sweep(curves: Mapping[str, Mapping[float, Sequence[float]]], xlabel: str, ylabel: str) -> "Figure":
    """One line a curve through the means, and a point a seed; both axes logarithmic.

    Args:
        curves: name to setting to the values of the seeds.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for colour, (name, points) in zip(COLOURS, curves.items(), strict=False):
        xs = sorted(points)
        axes.plot(xs, [sum(points[x]) / len(points[x]) for x in xs], label=name, color=colour)
        for x in xs:
            axes.plot([x] * len(points[x]), points[x], "o", color=colour, alpha=0.55, markersize=4)
    axes.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=ylabel)
    marks = sorted({x for points in curves.values() for x in points})
    axes.set_xticks(marks, [f"{x:g}" for x in marks])
    plain_ticks(axes.yaxis)
    axes.minorticks_off()
    if len(curves) > 1:
        axes.legend()
    return figure


def seeds(rows: Mapping[str, Sequence[float]], xlabel: str) -> "Figure":
    """One row a name, from the top down: a point a seed and a bar at their mean.

    Args:
        rows: name to the values of the seeds.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.42 * len(rows)))
    for y, values in enumerate(rows.values()):
        axes.plot(values, [y] * len(values), "o", color=COLOURS[0], alpha=0.6)
        axes.plot([sum(values) / len(values)], [y], "|", color=INK, markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel=xlabel)
    plain_ticks(axes.xaxis)
    return figure
