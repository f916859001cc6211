"""Figure 2: what speaks for fine-tuning and what against, and when it has paid for itself."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def weighing(benefits: Sequence[str], costs: Sequence[str]) -> "Figure":
    """Figure 2: a question, and one side against the other; each line is a short sentence, with its number."""
    line = 1.4
    low, high = (line * (len(lines) + 1) + 1.2 for lines in (costs, benefits))
    figure, axes = canvas(40, low + high + 7.6)
    prices = box(axes, (0.5, 0.3), (39, low), "", COLOURS[1])
    gains = box(axes, (0.5, low + 2.1), (39, high), "", COLOURS[2])
    ask = box(axes, (0.5, low + high + 4.7), (39, 2.6), "Does the best prompt fall short?", COLOURS[4], bold=True)
    arrow(axes, ask, gains)
    note(axes, (20, low + 1.2), "against")
    for side, lines, name in ((gains, benefits, "What it gives"), (prices, costs, "What it asks")):
        for i, words in enumerate((f"{name}:", *lines)):
            note(axes, (1.8 if i == 0 else 3.2, side.y + side.height - 1.3 - line * i), words, align="left")
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
