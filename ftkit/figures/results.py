"""Plots of what a run computed; each function draws what it is given and returns the figure."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ftkit.figures.style import plain_ticks

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_curve(history: Sequence[Mapping[str, Any]]) -> "Figure":
    """Training and validation loss over optimizer steps, on a logarithmic axis.

    Args:
        history: entries of a run's log, with `step` and `loss` or `eval_loss`.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for key, label, marker in (("loss", "training", ""), ("eval_loss", "validation", "o")):
        points = [(entry["step"], entry[key]) for entry in history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), marker=marker, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss (nats per token)", yscale="log")
    plain_ticks(axes.yaxis)
    axes.legend()
    return figure


def scores(rows: Mapping[str, Any], label: str) -> "Figure":
    """One horizontal bar a model, with its interval.

    Args:
        rows: name to `ftkit.evaluation.uncertainty.Interval`, drawn from the top down.
        label: what the bars measure, a share between 0 and 1.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 0.7 + 0.55 * len(rows)))
    names, intervals = list(rows), list(rows.values())
    values = [i.estimate for i in intervals]
    errors = [[i.estimate - i.low for i in intervals], [i.high - i.estimate for i in intervals]]
    axes.barh(names, values, height=0.55, xerr=errors, error_kw={"ecolor": "#7f8790", "capsize": 4})
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlim=(0, 1), xlabel=label)
    return figure
