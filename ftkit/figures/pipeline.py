"""Figure 14: the LoRA pipeline."""

from typing import TYPE_CHECKING

from ftkit.figures.diagram import arrow, box, canvas
from ftkit.figures.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def lora_pipeline(parameters: int, trained: int, rows: int, adapter_bytes: int, model_bytes: int) -> "Figure":
    """Figure 14: from a base model and rows to an adapter, and from there to a merged model.

    Args:
        parameters: of the base, which stays frozen.
        trained: numbers that train.
        rows: training rows that the run saw.
        adapter_bytes, model_bytes: sizes of the adapter's file and of the base in memory.
    """
    figure, axes = canvas(62, 17)
    base = box(axes, (0.5, 12), (17, 4), f"base, frozen\n{parameters / 1e6:.3g}M weights", COLOURS[0], frozen=True)
    attached = box(axes, (22.5, 12), (17, 4), f"LoRA attached\n{trained / 1e6:.2g}M train", COLOURS[1])
    data = box(axes, (44.5, 12), (17, 4), f"{rows:,} rows\nanswers trained", COLOURS[4])
    training = box(axes, (22.5, 6.2), (17, 3.4), "training,\ncheckpoints", COLOURS[1], bold=True)
    best = box(axes, (0.5, 0.5), (17, 3.6), f"adapter\n{adapter_bytes / 1e6:.2g} MB", COLOURS[2])
    merged = box(axes, (44.5, 0.5), (17, 3.6), f"merged model\n{model_bytes / 1e6:.3g} MB", COLOURS[2])
    arrow(axes, base, attached)
    arrow(axes, attached, training)
    arrow(axes, data, training)
    arrow(axes, training, best, "best")
    arrow(axes, best, merged, "merge, reload, compare")
    return figure
