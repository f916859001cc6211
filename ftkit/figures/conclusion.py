"""The runs of the book beside one another; the function draws what it is given and returns the figure."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from ftkit.figures.style import COLOURS, INK, plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def runs_beside(panels: Mapping[str, Mapping[str, Any]], logarithmic: Collection[str] = ()) -> "Figure":
    """One small panel a quantity, one bar a run, in one colour each.

    Args:
        panels: what is measured, to run to a number, or to an `Interval` of a share, drawn with its ends.
        logarithmic: panels with a logarithmic axis, drawn as points: a bar has no zero to start from there.
    """
    import matplotlib.pyplot as plt

    height = 1.0 + 0.4 * max(map(len, panels.values()))
    figure, grid = plt.subplots(-(-len(panels) // 2), 2, figsize=(5.4, height * -(-len(panels) // 2)), squeeze=False)
    colours: dict[str, str] = {}
    for axes, (label, runs) in zip(grid.flat, panels.items(), strict=False):
        for name, value in runs.items():
            colour = colours.setdefault(name, COLOURS[len(colours) % len(COLOURS)])
            middle = getattr(value, "estimate", value)
            if label in logarithmic:
                axes.plot(middle, name, "o", markersize=9, color=colour)
            else:
                axes.barh(name, middle, height=0.6, color=colour)
            if middle is not value:
                ends = [[middle - value.low], [value.high - middle]]
                axes.errorbar(middle, name, xerr=ends, ecolor=INK, capsize=3, fmt="none")
                axes.set_xlim(0, 1)
        if label in logarithmic:
            axes.set_xscale("log")
            axes.margins(x=0.15, y=0.4)
            plain_ticks(axes.xaxis)
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(label)
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    return figure
