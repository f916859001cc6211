"""Figures 4 and 13, and the plots of full fine-tuning."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def gradient_flow(blocks: Sequence[tuple[str, int, float]], loss: float) -> "Figure":
    """Figure 4: activations up through every block, gradients down through every block.

    Args:
        blocks: name, parameters and norm of the gradient, from the embedding up.
        loss: of the batch.
    """
    figure, axes = canvas(52, 4 * len(blocks) + 7)
    made = [box(axes, (12, 0.5), (20, 2.4), "tokens", INK, frozen=True)]
    for i, (name, parameters, norm) in enumerate(blocks):
        y = 4.3 + 4 * i
        made.append(box(axes, (12, y), (20, 2.4), name, COLOURS[0]))
        note(axes, (10.5, y + 1.2), f"{parameters:,}", align="right")
        note(axes, (33.5, y + 1.2), f"gradient {norm:.2g}", align="left", colour=COLOURS[3])
    top = 4.3 + 4 * len(blocks)
    made.append(box(axes, (12, top), (20, 2.4), f"loss {loss:.2f}", COLOURS[3]))
    for i, (below, above) in enumerate(zip(made, made[1:], strict=False)):
        _vertical(axes, below.y + below.height, above.y, 17)
        if i:  # the tokens get no gradient
            _vertical(axes, above.y, below.y + below.height, 27, colour=COLOURS[3])
    note(axes, (5, top + 1.2), "parameters")
    note(axes, (43, top + 1.2), "every block\nis updated", colour=COLOURS[3])
    return figure


def _vertical(axes, start: float, end: float, x: float, colour: str = INK) -> None:
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.3, "shrinkA": 1, "shrinkB": 1}
    axes.annotate("", xy=(x, end), xytext=(x, start), arrowprops=look)


def training_run(setup: Sequence[str], loop: Sequence[str], monitoring: Sequence[str]) -> "Figure":
    """Figure 13: what is done once, what is done at every step, and what is looked at.

    Args:
        setup, loop, monitoring: short lines of each, at most 18 letters.
    """
    rows = 1.6 * max(map(len, (setup, loop, monitoring))) + 1.5
    figure, axes = canvas(57, rows + 4)
    parts = (("setup, once", setup), ("loop, every step", loop), ("monitoring", monitoring))
    made = []
    for i, (title, lines) in enumerate(parts):
        made.append(box(axes, (0.5 + 19.5 * i, 0.5), (17, rows), "\n".join(lines), COLOURS[i]))
        note(axes, (9 + 19.5 * i, rows + (3.2 if i == 1 else 1.5)), title, colour=COLOURS[i])
    for left, right in zip(made, made[1:], strict=False):
        arrow(axes, left, right)
    look = {"arrowstyle": "-|>", "color": COLOURS[1], "linewidth": 1.3, "connectionstyle": "arc3,rad=0.25"}
    axes.annotate("", xy=(22, rows + 0.6), xytext=(35, rows + 0.6), arrowprops=look)
    return figure


def two_curves(losses: Mapping[str, Sequence[float]]) -> "Figure":
    """Losses over optimizer steps: the first as a line, the second as points on it.

    Args:
        losses: two names and a loss for each step.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for (name, values), style in zip(losses.items(), ("-", "o"), strict=True):
        axes.plot(range(1, len(values) + 1), values, style, label=name, markersize=5)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend()
    return figure


def share_changed(shares: Mapping[str, Mapping[str, float]]) -> "Figure":
    """Bars: the share of the weights of each kind that a run changed, by the precision they are kept in.

    Args:
        shares: precision to kind to a share between 0 and 1.
    """
    import matplotlib.pyplot as plt

    kinds, width = list(next(iter(shares.values()))), 0.8 / len(shares)
    figure, axes = plt.subplots(figsize=(5.4, 2.6))
    for i, (precision, share) in enumerate(shares.items()):
        positions = [k + (i - (len(shares) - 1) / 2) * width for k in range(len(kinds))]
        bars = axes.barh(positions, [share[kind] for kind in kinds], height=0.9 * width, label=precision)
        axes.bar_label(bars, [f"{share[kind]:.0%}" for kind in kinds], padding=4, color=INK)
    axes.set(xlim=(0, 1.15), xlabel="share of weights that changed", yticks=range(len(kinds)), yticklabels=kinds)
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1.0])
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.25), ncols=len(shares))
    return figure
