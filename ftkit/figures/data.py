"""Figures of data preparation: the pipeline with its counts, the curve of banding, and what a batch is filled with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

KEPT, LEFT_OUT = COLOURS[0], COLOURS[3]

_SPLITS = ("train", "validation", "test")
_STEPS = {
    "Read": ("recognise the format", ()),
    "Clean": ("keep newlines and scripts", ()),
    "Filter": ("judge by kind of text", ("too short", "too long", "wrong encoding", "repetitive", "few letters")),
    "Deduplicate": ("hash, MinHash", ("exact duplicate", "near-duplicate")),
    "Decontaminate": ("50-character n-grams", ("overlaps the test set",)),
    "Encode": (
        "chat template and mask",
        ("longer than max_seq_length", "the prompt alone fills max_seq_length", "nothing to train"),
    ),
    "Split": ("groups stay together", ("overlaps a held-out row",)),
}
"""Name of a step: what it does, and the reasons for which it leaves rows out."""


@dataclass(frozen=True)
class Step:
    """One step of the pipeline.

    Attributes:
        name: of the step.
        does: what it does, in a few words.
        parts: what stands after it, by name; one part where the rows are not divided.
        dropped: rows that it leaves out, by reason.
    """

    name: str
    does: str
    parts: Mapping[str, int]
    dropped: Mapping[str, int] = field(default_factory=dict)


def pipeline_steps(metadata: Mapping[str, Any]) -> list[Step]:
    """The steps that data went through, with their counts.

    Args:
        metadata: what `metadata.json` of a prepared folder holds, of rows that were not packed. A reason that belongs
            to no later step is counted to reading.
    """
    dropped = metadata["rows"]["dropped"]
    later = {reason for _, reasons in _STEPS.values() for reason in reasons}
    left, steps = metadata["rows"]["read"], []
    for name, (does, reasons) in _STEPS.items():
        lost = {r: n for r, n in dropped.items() if r in reasons or (name == "Read" and r not in later)}
        left -= sum(lost.values())
        steps.append(Step(name, does, {"rows": left}, lost))
    sizes = {split: metadata[f"{key}_size"] for split, key in zip(_SPLITS, ("train", "val", "test"), strict=True)}
    return [*steps[:-1], Step(steps[-1].name, steps[-1].does, sizes, steps[-1].dropped)]


def data_pipeline(steps: Sequence[Step]) -> "Figure":
    """The steps from the top down; a bar is as long as the rows that stand after it, with what was left out behind."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.0, 0.98 * len(steps)))
    most = max(sum(step.parts.values()) + sum(step.dropped.values()) for step in steps)
    for at, step in enumerate(steps):
        axes.text(0, at - 0.36, f"{at + 1}. {step.name}", weight="bold", va="center")
        axes.text(most, at - 0.36, step.does, size=10, ha="right", va="center")
        left = 0
        for number, rows in enumerate(step.parts.values()):
            axes.barh(at, rows, left=left, height=0.3, color=KEPT, alpha=1 - 0.3 * number)
            left += rows
        axes.barh(at, sum(step.dropped.values()), left=left, height=0.3, color=LEFT_OUT)
        kept = ", ".join(f"{rows:,} {name}".strip() for name, rows in step.parts.items())
        axes.text(0, at + 0.29, kept, size=10, va="center")
        lost = ", ".join(f"{rows:,} {reason}" for reason, rows in step.dropped.items())
        axes.text(most, at + 0.29, f"− {lost}" if lost else "", size=10, ha="right", va="center")
    axes.set(xlim=(0, most), ylim=(len(steps) - 0.5, -0.6))
    axes.axis("off")
    return figure


def band_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], measured: tuple[Sequence[float], Sequence[float]]
) -> "Figure":
    """Chance of comparing a pair, over its Jaccard similarity.

    Args:
        curves: label to (similarities, probabilities by the formula).
        measured: (similarities, shares) of pairs that were really found, drawn as points.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    for label, points in curves.items():
        axes.plot(*points, label=label)
    axes.plot(*measured, "o", color=INK, label="measured")
    axes.set(xlabel="Jaccard similarity s", ylabel="share of pairs compared", ylim=(-0.02, 1.02))
    axes.legend()
    return figure


def filling(tokens: Mapping[str, tuple[int, int, int]]) -> "Figure":
    """One horizontal bar for each way of making batches: trained tokens, other tokens, and padding.

    Args:
        tokens: way to (trained, other, padding), drawn from the top down.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 1.2 + 0.5 * len(tokens)))
    left = [0] * len(tokens)
    for part, (label, colour) in enumerate((("trained", KEPT), ("context", COLOURS[1]), ("padding", INK))):
        widths = [counts[part] for counts in tokens.values()]
        axes.barh(list(tokens), widths, left=left, height=0.55, color=colour, label=label)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.set(xlabel="token positions computed in one epoch")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.locator_params(axis="x", nbins=5)
    axes.legend(loc="lower center", bbox_to_anchor=(0.4, 1), ncols=3)
    return figure


def visible(mask: Sequence[Sequence[bool]], tokens: Sequence[str]) -> "Figure":
    """Who may look at whom: row t marks the places that token t attends to.

    Args:
        mask: (tokens, tokens), True where the row's token sees the column's.
        tokens: what stands at each place.
    """
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    figure, axes = plt.subplots(figsize=(4.2, 3.6))
    axes.imshow(mask, cmap=ListedColormap(["none", KEPT]), vmin=0, vmax=1)
    axes.set_xticks(range(len(tokens)), tokens)
    axes.set_yticks(range(len(tokens)), tokens)
    axes.set(xlabel="sees", ylabel="token")
    axes.grid(visible=False)
    return figure
