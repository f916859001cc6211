"""Figures 10, 11 and 15, and the code books: weights in 4 bits, what trains beside them, and what that takes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas, note
from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure


FROZEN = ("quantized_weights", "weights", "embeddings")
"""Components of `ftkit.memory.estimate` that are the frozen base."""


def code_books(books: Mapping[str, Sequence[float]], weights: Sequence[float]) -> "Figure":
    """The values of codes as points, below a histogram of the weights that are rounded to them.

    Args:
        books: name to its values, between -1 and 1, drawn from the top down.
        weights: divided by the scale of their block.
    """
    import matplotlib.pyplot as plt

    figure, (top, bottom) = plt.subplots(
        2, 1, sharex=True, figsize=(5.4, 2.6 + 0.35 * len(books)), height_ratios=(2, 0.4 + 0.35 * len(books))
    )
    top.hist(weights, bins=121, range=(-1, 1), color=INK, alpha=0.5)
    top.set(yticks=[], ylabel="weights")
    top.grid(visible=False)
    for row, (values, colour) in enumerate(zip(books.values(), COLOURS, strict=False)):
        bottom.plot(values, [row] * len(values), "|", color=colour, markersize=14, markeredgewidth=2)
    bottom.set(xlim=(-1.03, 1.03), yticks=range(len(books)), yticklabels=list(books), xlabel="weight / scale")
    bottom.set_ylim(len(books) - 0.4, -0.6)
    bottom.grid(axis="y", visible=False)
    return figure


def qlora_layer(d_out: int, d_in: int, r: int, packed_bytes: int, adapter_bytes: int) -> "Figure":
    """Figure 10: a layer in 4 bits with an adapter beside it, and what is updated.

    Args:
        d_out, d_in, r: shape of the weight and rank of the adapter.
        packed_bytes: of the weight's codes and scales.
        adapter_bytes: of A and B.
    """
    figure, axes = canvas(56, 26)
    x = box(axes, (22.5, 0.5), (14, 2.2), "input x", INK)
    packed = f"W  {d_out} × {d_in}\n4 bits: {packed_bytes / 1e6:.2g} MB\nfrozen"
    frozen = box(axes, (0.5, 4.6), (15.5, 4.6), packed, INK, frozen=True)
    written = box(axes, (0.5, 13.4), (15.5, 4.6), "dequantized,\n16 bits, for\nthis use only", INK, frozen=True)
    a = box(axes, (35, 6), (20.5, 3.2), f"A  {r} × {d_in}", COLOURS[0], bold=True)
    b = box(axes, (35, 14), (20.5, 3.2), f"B  {d_out} × {r}", COLOURS[0], bold=True)
    h = box(axes, (22.5, 22.5), (14, 2.6), "+  output h", INK)
    for start, end in ((frozen, written), (x, written), (written, h), (x, a), (a, b)):
        arrow(axes, start, end)
    arrow(axes, b, h, "× α / r")
    note(axes, (46.3, 11.6), f"both 32 bits:\n{adapter_bytes / 1e6:.2g} MB", align="left", colour=COLOURS[0])
    arrow(axes, h, b, colour=COLOURS[3], dashed=True, bend=0.35)
    note(axes, (49, 23.6), "updated:\nA and B alone", colour=COLOURS[3])
    return figure


def memory_distribution(components: Mapping[str, float]) -> "Figure":
    """Figure 11: one bar a component of a step's memory, with its share of the whole.

    Args:
        components: name (as `ftkit.memory.estimate` gives it) to GB, drawn from the top down.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5.4, 0.9 + 0.36 * len(components)))
    names, total = [name.replace("_", " ") for name in components], sum(components.values())
    colours = [COLOURS[0] if name in FROZEN else COLOURS[1] for name in components]
    bars = axes.barh(names, list(components.values()), 0.66, color=colours)
    axes.bar_label(bars, [f"{v:.1f} GB, {v / total:.0%}" for v in components.values()], padding=4, color=INK)
    axes.set(xlabel="GB in a training step; blue is the frozen base", xlim=(0, 1.3 * max(components.values())))
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    return figure


def qlora_setup(
    base_bytes: int, packed_bytes: int, wide_bytes: int, adapter_bytes: int, optimizer_bytes: int
) -> "Figure":
    """Figure 15: quantise, adapt, and what the run then holds before its first row.

    Args:
        base_bytes: the base in 16 bits.
        packed_bytes: its weights in 4 bits, with scales.
        wide_bytes: what stays as it was loaded: embeddings, head, norms.
        adapter_bytes: A and B in float32; their gradients take as much.
        optimizer_bytes: the optimizer's states.
    """

    def mb(size: int) -> str:
        return f"{size / 1e6:.3g} MB"

    figure, axes = canvas(56, 17)
    base = box(axes, (0.5, 10.5), (12.5, 4.4), f"base\n16 bits\n{mb(base_bytes)}", INK, frozen=True)
    packed = f"4 bits: {mb(packed_bytes)}\nwide: {mb(wide_bytes)}\nfrozen"
    frozen = box(axes, (21.5, 10.5), (15, 4.4), packed, COLOURS[0], frozen=True)
    adapted = box(axes, (43, 10.5), (12.5, 4.4), f"adapters\n32 bits\n{mb(adapter_bytes)}", COLOURS[1])
    lines = f"gradients {mb(adapter_bytes)}\nAdamW, 8 bits {mb(optimizer_bytes)}"
    training = box(axes, (34.5, 3.2), (21, 3.4), lines, COLOURS[1])
    held = packed_bytes + wide_bytes + 2 * adapter_bytes + optimizer_bytes
    whole = box(axes, (0.5, 3.2), (28, 3.4), f"held before the first row:\n{mb(held)}", COLOURS[2], bold=True)
    arrow(axes, base, frozen, "quantise")
    arrow(axes, frozen, adapted, "adapt")
    arrow(axes, adapted, training)
    arrow(axes, training, whole)
    note(axes, (28, 1.2), "activations come on top, and depend on the rows")
    return figure
