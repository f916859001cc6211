"""LoRA and its variants as pictures: what is frozen, what trains, and which way the numbers flow.

The box of W follows its shape; grey and dashed is frozen, coloured is trained.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.figures.style import COLOURS, INK, plain_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TRAINED, OTHER = COLOURS[0], COLOURS[1]


def lora(d_out: int, d_in: int, r: int) -> "Figure":
    """LoRA: a frozen W (d_out, d_in), and beside it trained A (r, d_in) and B (d_out, r)."""
    figure, axes = _canvas()
    _base(axes, d_out, d_in)
    _branch(axes, f"A  {r} × {d_in}\nstarts random", f"B  {d_out} × {r}\nstarts at 0", "× α / r")
    return figure


def lora_fa(d_out: int, d_in: int, r: int) -> "Figure":
    """LoRA-FA: as LoRA, with A frozen; what the backward pass keeps of each token is written beside the arrows."""
    figure, axes = _canvas()
    _base(axes, d_out, d_in)
    _branch(axes, f"A  {r} × {d_in}\nstays as drawn", f"B  {d_out} × {r}\ntrained", "× α / r", train_a=False)
    axes.text(9.1, 2.45, f"kept: A x,\n{r} numbers", va="center", color=TRAINED)
    axes.text(9.1, 0.55, f"not kept: x,\n{d_in} numbers", va="center")
    return figure


def vera(d_out: int, d_in: int, r: int, layers: int) -> "Figure":
    """VeRA: one frozen pair for all layers, and for each a trained d (r) and b (d_out)."""
    figure, axes = _canvas()
    axes.set(xlim=(0, 10), ylim=(-0.2, 6.4))
    for x, name, size in ((2.2, "A", f"{r} × {d_in}"), (6.2, "B", f"{d_out} × {r}")):
        _box(axes, x, 5.1, 3.0, 1.0, f"{name}  {size}\nrandom, shared", None)
    for row, label in enumerate(["layer 1", "layer 2", f"layer {layers}"]):
        y = 3.4 - 1.5 * row
        axes.text(0.0, y + 0.4, label, va="center")
        _box(axes, 2.2, y, 3.0, 0.8, f"d  {r} numbers", TRAINED)
        _box(axes, 6.2, y, 3.0, 0.8, f"b  {d_out} numbers", TRAINED)
        if row == 1:
            axes.text(0.5, y - 0.33, "⋮", va="center", fontsize=15)
    for x in (3.7, 7.7):
        _arrow(axes, (x, 5.05), (x, 4.25))
    axes.text(5.7, 4.65, "used by every layer", ha="center", va="center")
    return figure


def delta_lora(steps: Sequence[int], moved: Sequence[float], product: Sequence[float], start: int) -> "Figure":
    """Delta-LoRA over a run: how far W has moved, and how large the update BA beside it is.

    Args:
        steps: optimizer steps.
        moved, product: Frobenius norms of W_t - W_0 and of s B_t A_t at those steps.
        start: the step from which W moves.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot(steps, product, label="update beside W:  s B A", color=TRAINED)
    axes.plot(steps, moved, label="W itself, from where it began", color=OTHER)
    axes.axvline(start, color=INK, linestyle=":")
    at = (start, axes.get_ylim()[1] * 0.96)
    axes.annotate(f"K = {start}", at, xytext=(5, 0), textcoords="offset points", va="top")
    axes.set(xlabel="optimizer step", ylabel="Frobenius norm")
    axes.legend(loc="lower right")
    return figure


def lora_plus(rates: Sequence[tuple[float, float]]) -> "Figure":
    """LoRA+: the learning rates of A and of B over the steps of a run, on a logarithmic axis.

    Args:
        rates: (rate of A, rate of B), one pair a step.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for index, (name, colour) in enumerate((("A", TRAINED), ("B", OTHER))):
        axes.plot(range(1, len(rates) + 1), [pair[index] for pair in rates], label=f"rate of {name}", color=colour)
    axes.set(xlabel="optimizer step", ylabel="learning rate", yscale="log")
    plain_ticks(axes.yaxis)
    axes.legend(loc="lower left")
    return figure


def _canvas() -> tuple["Figure", "Axes"]:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.3, 3.7))
    axes.set(xlim=(0, 12), ylim=(-0.7, 6.2))
    axes.axis("off")
    return figure, axes


def _base(axes: "Axes", d_out: int, d_in: int) -> None:
    """The input, the frozen weight above it, and the sum."""
    side = 3.0 / max(d_out, d_in)
    width, height = max(d_in * side, 1.9), max(d_out * side, 1.0)  # room for the label
    _box(axes, 2.2 - width / 2, 2.4 - height / 2, width, height, f"W  {d_out} × {d_in}\nfrozen", None)
    axes.text(4.6, -0.5, "x", ha="center", va="center", style="italic", fontsize=13)
    axes.text(4.6, 5.8, "h", ha="center", va="center", style="italic", fontsize=13)
    axes.text(4.6, 4.85, "+", ha="center", va="center", fontsize=15)
    _arrow(axes, (4.4, -0.3), (2.2, 2.35 - height / 2))
    _arrow(axes, (2.2, 2.45 + height / 2), (4.3, 4.75))
    _arrow(axes, (4.6, 5.1), (4.6, 5.55))


def _branch(axes: "Axes", a: str, b: str, scale: str, train_a: bool = True) -> None:
    """A below B, to the right of W; both narrow towards each other, where only r numbers pass."""
    wide, narrow, x = 1.9, 0.9, 7.0
    _shape(axes, [(x - wide, 0.3), (x + wide, 0.3), (x + narrow, 1.9), (x - narrow, 1.9)], TRAINED if train_a else None)
    _shape(axes, [(x - narrow, 2.5), (x + narrow, 2.5), (x + wide, 4.1), (x - wide, 4.1)], TRAINED)
    for y, label in ((1.05, a), (3.35, b)):
        axes.text(x, y, label, ha="center", va="center", fontsize=10.5)
    _arrow(axes, (4.8, -0.3), (x, 0.25))
    _arrow(axes, (x, 1.95), (x, 2.45))
    _arrow(axes, (x, 4.15), (4.9, 4.8))
    axes.text(6.6, 4.75, scale, va="center")


def _box(axes: "Axes", x: float, y: float, width: float, height: float, label: str, colour: str | None) -> None:
    _shape(axes, [(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)
    axes.text(x + width / 2, y + height / 2, label, ha="center", va="center", fontsize=10.5)


def _shape(axes: "Axes", corners: list[tuple[float, float]], colour: str | None) -> None:
    from matplotlib.patches import Polygon

    fill = {"facecolor": INK, "alpha": 0.12} if colour is None else {"facecolor": colour, "alpha": 0.14}
    axes.add_patch(Polygon(corners, edgecolor="none", **fill))
    style = {"linestyle": "--"} if colour is None else {"linewidth": 1.8}
    axes.add_patch(Polygon(corners, fill=False, edgecolor=colour or INK, **style))


def _arrow(axes: "Axes", start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "-|>", "color": INK, "linewidth": 1.3})
