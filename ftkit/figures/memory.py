"""Figures 3, 17 and 19: what a run holds, as stacked bars of computed bytes."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GROUPS = {
    "weights": ("quantized_weights", "weights", "embeddings"),
    "adapters": ("adapters",),
    "gradients": ("gradients",),
    "optimizer and master": ("optimizer", "master_weights"),
    "activations and logits": ("activations", "logits"),
    "workspace": ("workspace",),
}
"""What the legend names, and the components of `ftkit.memory.estimate` in it."""
PALETTE = (*COLOURS[:5], INK)


def approaches_overview(runs: Mapping[str, Mapping[str, int]]) -> "Figure":
    """Figure 3: what full fine-tuning, LoRA and QLoRA hold before the first token.

    Args:
        runs: method to its components in bytes; those that depend on the batch are left out.
    """
    static = {name: {k: v for k, v in parts.items() if k not in _of_the_batch()} for name, parts in runs.items()}
    return _stacked(static, "GB before the first token", {})


def memory_comparison(runs: Mapping[str, Mapping[str, int]], cards: Mapping[str, float]) -> "Figure":
    """Figure 17: one training step of each run, beside the memory of cards.

    Args:
        runs: name to components in bytes.
        cards: name to memory in GB, drawn as lines.
    """
    return _stacked(runs, "GB in a training step", cards)


def memory_optimisation(runs: Mapping[str, Mapping[str, int]], cards: Mapping[str, float]) -> "Figure":
    """Figure 19: the same step as one strategy after the other is added to it, from the top down.

    Args:
        runs: what was added to its components in bytes.
        cards: name to memory in GB, drawn as lines.
    """
    return _stacked(runs, "GB in a training step", cards)


def _of_the_batch() -> set[str]:
    return {part for name in ("activations and logits", "workspace") for part in GROUPS[name]}


def _stacked(runs: Mapping[str, Mapping[str, int]], label: str, cards: Mapping[str, float]) -> "Figure":
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.0, 1.8 + 0.42 * len(runs)))
    names, totals = list(runs), [sum(parts.values()) / 1e9 for parts in runs.values()]
    left = [0.0] * len(runs)
    for (group, members), colour in zip(GROUPS.items(), PALETTE, strict=True):
        widths = [sum(parts.get(member, 0) for member in members) / 1e9 for parts in runs.values()]
        if any(widths):
            axes.barh(names, widths, 0.62, left, color=colour, label=group)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    widest = max([*totals, *cards.values()])
    for row, total in enumerate(totals):
        axes.text(total + widest * 0.012, row, f"{total:,.{0 if total >= 100 else 1}f}", va="center")
    for name, memory in cards.items():
        axes.axvline(memory, color=INK, linestyle="--", linewidth=1, alpha=0.6, zorder=0)
        axes.text(memory, -0.62, name, ha="center", va="bottom", size=10)
    axes.set(xlabel=label, xlim=(0, widest * 1.13))
    axes.set_ylim(len(runs) - 0.5, -0.6)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="outside lower left", ncols=2, fontsize=10, columnspacing=1, frameon=False)
    return figure
