"""Figure 1: the life of a model."""

from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lifecycle(pretraining_tokens: float, tokens: int, trained_tokens: int, parameters: int) -> "Figure":
    """Figure 1: pre-training, fine-tuning and deployment, with the size of each.

    Args:
        pretraining_tokens: tokens that the base model has seen.
        tokens: tokens of the fine-tuning run, prompts included.
        trained_tokens: those of them that carry a loss.
        parameters: of the model.
    """
    figure, axes = canvas(56, 13)
    before = box(axes, (0.5, 7), (15, 5), f"pre-training\n{_size(pretraining_tokens)} tokens\nof any text", COLOURS[0])
    tuning = box(axes, (20.5, 7), (15, 5), f"fine-tuning\n{_size(tokens)} tokens\nof one task", COLOURS[1])
    using = box(axes, (40.5, 7), (15, 5), "deployment\nnew inputs\nof that task", COLOURS[2])
    arrow(axes, before, tuning, "θ₀")
    arrow(axes, tuning, using, "θ")
    data = box(axes, (20.5, 0.5), (15, 3.6), f"{_size(trained_tokens)}\ntrained tokens", COLOURS[1], frozen=True)
    arrow(axes, data, tuning)
    note(axes, (9.5, 2.3), f"one model throughout:\n{_size(parameters)} parameters")
    note(axes, (47, 2.3), "what it gets wrong\nis the next data", colour=COLOURS[2])
    return figure


def starts(histories: dict[str, list[tuple[int, float]]], label: str) -> "Figure":
    """Loss on held-out text over the steps of a run, one line a starting point.

    Args:
        histories: name of the start to its `(step, loss)` points.
        label: of the axis of losses.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for name, points in histories.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.set(xlabel="optimizer step", ylabel=label)
    axes.legend()
    return figure


def _size(number: float) -> str:
    for power, unit in ((12, "T"), (9, "B"), (6, "M"), (3, "k")):
        if number >= 10**power:
            return f"{number / 10**power:.3g} {unit}"
    return f"{number:g}"
