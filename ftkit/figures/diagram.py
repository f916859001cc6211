"""Boxes and arrows for the drawn figures, in the units of a grid of characters: the text decides the size.

figure, axes = canvas(columns=56, rows=12)
first = box(axes, (2, 8), (16, 3), "data", COLOURS[0])
second = box(axes, (26, 8), (16, 3), "model", COLOURS[1])
arrow(axes, first, second, "batches")
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


LETTERS = 10
"""Size of the words, in points."""


@dataclass(frozen=True)
class Box:
    """A drawn box: its lower left corner, width and height."""

    x: float
    y: float
    width: float
    height: float

    def toward(self, other: "Box") -> tuple[float, float]:
        """The middle of the side that faces `other`."""
        dx = other.x + other.width / 2 - self.x - self.width / 2
        dy = other.y + other.height / 2 - self.y - self.height / 2
        if abs(dx) * (self.height + other.height) >= abs(dy) * (self.width + other.width):
            return self.x + self.width * (dx > 0), self.y + self.height / 2
        return self.x + self.width / 2, self.y + self.height * (dy > 0)


def canvas(columns: float, rows: float) -> tuple["Figure", "Axes"]:
    """An empty figure without axes; a column is about as wide as a letter, a row as high as a line.

    Up to 57 columns the letters stay legible on a phone.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(columns * 0.09, rows * 0.21))
    axes.set(xlim=(0, columns), ylim=(0, rows))
    axes.axis("off")
    return figure, axes


def box(
    axes: "Axes",
    at: tuple[float, float],
    size: tuple[float, float],
    text: str,
    colour: str = COLOURS[0],
    *,
    frozen: bool = False,
    bold: bool = False,
) -> Box:
    """A rounded box with centred text; `frozen` is dashed and pale: what does not train."""
    from matplotlib.patches import FancyBboxPatch

    made = Box(*at, *size)
    style = {"linestyle": "--", "alpha": 0.05} if frozen else {"alpha": 0.12}
    shape = "round,pad=0,rounding_size=0.8"
    axes.add_patch(FancyBboxPatch(at, *size, boxstyle=shape, facecolor=colour, edgecolor="none", alpha=style["alpha"]))
    line = style.get("linestyle", "-")
    axes.add_patch(
        FancyBboxPatch(at, *size, boxstyle=shape, fill=False, edgecolor=colour, linewidth=1.4, linestyle=line)
    )
    weight = "bold" if bold else "normal"
    axes.text(at[0] + size[0] / 2, at[1] + size[1] / 2, text, ha="center", va="center", weight=weight, size=LETTERS)
    return made


def arrow(
    axes: "Axes", start: Box, end: Box, text: str = "", *, colour: str = INK, dashed: bool = False, bend: float = 0.0
) -> None:
    """An arrow from box to box, with words beside its middle."""
    (x0, y0), (x1, y1) = start.toward(end), end.toward(start)
    look = {
        "arrowstyle": "-|>",
        "color": colour,
        "linewidth": 1.3,
        "linestyle": "--" if dashed else "-",
        "shrinkA": 2,
        "shrinkB": 2,
        "connectionstyle": f"arc3,rad={bend}",
    }
    axes.annotate("", xy=(x1, y1), xytext=(x0, y0), arrowprops=look)
    if text:
        level = abs(y1 - y0) < abs(x1 - x0)
        x, y = (x0 + x1) / 2 + (0 if level else 0.8), (y0 + y1) / 2 + (0.5 if level else 0)
        ha, va = ("center", "bottom") if level else ("left", "center")
        axes.text(x, y, text, ha=ha, va=va, color=colour, size=LETTERS)


def note(axes: "Axes", at: tuple[float, float], text: str, *, align: str = "center", colour: str = INK) -> None:
    """Words without a box."""
    axes.text(*at, text, ha=align, va="center", color=colour, size=LETTERS)
