"""Figure 16: what an evaluation is made of; and the plots of differences with their intervals."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def framework(rows: int, parts: Mapping[str, Sequence[str]], verdict: str) -> "Figure":
    """Figure 16: unseen rows go to both models, three kinds of measurement follow, and one sentence comes out.

    Args:
        rows: held-out rows.
        parts: three headings (metrics, benchmarks, analysis), each with its short lines, numbers included.
        verdict: what may be said at the end.
    """
    most = max(map(len, parts.values()))
    body = 1.5 * most + 2.4
    figure, axes = canvas(57, body + 13.2)
    top = body + 9
    data = box(axes, (17, top), (23, 3.4), f"{rows} unseen rows,\none prompt for both", COLOURS[0])
    base = box(axes, (0.5, top), (12, 3.4), "base model", COLOURS[4], frozen=True)
    tuned = box(axes, (44.5, top), (12, 3.4), "tuned model", COLOURS[4])
    arrow(axes, data, base)
    arrow(axes, data, tuned)
    last = box(axes, (0.5, 0.3), (56, 2.6), verdict, COLOURS[5], bold=True)
    for i, (name, lines) in enumerate(parts.items()):
        x = 0.5 + 19.2 * i
        part = box(axes, (x, 5), (17.6, body), "", COLOURS[1 + i])
        arrow(axes, data, part)
        arrow(axes, part, last)
        note(axes, (x + 8.8, 5 + body - 1.1), name, colour=COLOURS[1 + i])
        for at, line in enumerate(lines):
            note(axes, (x + 0.8, 5 + body - 2.8 - 1.5 * at), line, align="left")
    return figure


def differences(gains: Mapping[str, Any], label: str) -> "Figure":
    """Differences between two models, each with its interval, against the line of none.

    Args:
        gains: name to `ftkit.evaluation.uncertainty.Interval`, drawn from the top down.
        label: what is subtracted from what.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.4 * len(gains)))
    for at, gain in enumerate(gains.values()):
        sure = gain.low > 0 or gain.high < 0
        colour = COLOURS[0] if sure else INK
        axes.plot([gain.low, gain.high], [at, at], color=colour, linewidth=3)
        axes.plot([gain.estimate], [at], "o", color=colour)
    axes.axvline(0, color=INK, linestyle="--", linewidth=1)
    axes.set(yticks=range(len(gains)), yticklabels=list(gains), xlabel=label)
    axes.invert_yaxis()
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="y", visible=False)
    return figure


def narrowing(intervals: Mapping[int, Any], label: str) -> "Figure":
    """How an interval narrows with the number of rows.

    Args:
        intervals: number of rows to `Interval`.
        label: what the interval is of.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    sizes = list(intervals)
    axes.fill_between(
        sizes, [i.low for i in intervals.values()], [i.high for i in intervals.values()], alpha=0.25, linewidth=0
    )
    axes.plot(sizes, [i.estimate for i in intervals.values()], marker="o")
    axes.axhline(0, color=INK, linestyle="--", linewidth=1)
    axes.set(xlabel="rows", ylabel=label, xlim=(0, None))
    return figure
