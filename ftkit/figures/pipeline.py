"""Figure 14: the pipeline of a LoRA run."""

from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas
from ftkit.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lora_pipeline(
    *,
    parameters: int,
    trained: int,
    rows: int,
    steps: int,
    validation_loss: float,
    adapter_bytes: int,
    merged_bytes: int,
) -> "Figure":
    """Figure 14: from a frozen base and rows to an adapter, and from there to a merged model.

    Args:
        parameters: of the base, which stays frozen.
        trained: numbers that train.
        rows: training rows that the run saw.
        steps: optimizer steps.
        validation_loss: of the checkpoint that was kept, nats per token.
        adapter_bytes, merged_bytes: sizes of the two files.
    """
    figure, axes = canvas(56, 24)
    left, right, size = 0.5, 31, (24.5, 4)
    base = box(axes, (left, 19.5), size, f"base, frozen\n{_short(parameters)} weights", COLOURS[0], frozen=True)
    data = box(axes, (right, 19.5), size, f"{rows:,} rows\ntheir answers are trained", COLOURS[4])
    attached = box(axes, (left, 13.2), size, f"adapters attached\n{_short(trained)} numbers train", COLOURS[1])
    training = box(axes, (right, 13.2), size, f"{steps} steps,\ncheckpoints, validation", COLOURS[1], bold=True)
    adapter = box(axes, (left, 6.9), size, f"adapter in PEFT's format\n{adapter_bytes / 1e6:.3g} MB", COLOURS[2])
    best = box(axes, (right, 6.9), size, f"best checkpoint\nloss {validation_loss:.3g}", COLOURS[1])
    merged = box(axes, (left, 0.6), size, f"merged model\n{merged_bytes / 1e6:.3g} MB", COLOURS[2])
    for start, end in ((base, attached), (data, training), (attached, training), (training, best), (best, adapter)):
        arrow(axes, start, end)
    arrow(axes, adapter, merged, "add, reload, compare")
    return figure


def _short(number: int) -> str:
    """1234567 to 1.23M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{letter}"
    return str(number)
