"""Figure 2: what speaks for fine-tuning and what against, and when it has paid for itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def weighing(benefits: Sequence[str], costs: Sequence[str]) -> "Figure":
    """Figure 2: a question for each side; each line is a short sentence, with its number where it has one."""
    rows = max(len(benefits), len(costs))
    figure, axes = canvas(62, 8 + 1.6 * rows)
    top = 1.6 * rows
    ask = box(axes, (17, top + 4.2), (28, 3), "Does the best prompt fall short?", COLOURS[4])
    gains = box(axes, (0.5, 0.5), (29.5, top + 0.5), "", COLOURS[2])
    prices = box(axes, (32, 0.5), (29.5, top + 0.5), "", COLOURS[1])
    for side, lines, name in ((gains, benefits, "what it gives"), (prices, costs, "what it asks")):
        arrow(axes, ask, side)
        note(axes, (side.x + side.width / 2, top + 2), name)
        for i, line in enumerate(lines):
            note(axes, (side.x + 1, top - 0.2 - 1.6 * i), line, align="left")
    return figure


def break_even(training: float, saved: float, requests: int) -> "Figure":
    """Operations spent with and without fine-tuning, over the number of requests.

    Args:
        training: operations of the training run.
        saved: operations that the shorter prompt saves with each request.
        requests: where the two lines cross.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    ends = [0, 2 * requests]
    axes.plot(ends, [training] * 2, label="fine-tuning, paid once")
    axes.plot(ends, [0, 2 * requests * saved], label="the longer prompt, paid each time")
    axes.plot([requests], [training], "o", color=COLOURS[3], label=f"even after {requests:,} requests")
    axes.set(xlabel="requests", ylabel="operations", ylim=(0, None))
    axes.legend()
    return figure
