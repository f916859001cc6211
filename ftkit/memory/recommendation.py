"""`recommend`: model, rows, card and goal in; method and settings out, each with its reason.

The order of questions is the guide's selection flowchart with its numbers replaced by `estimate`: what the goal needs,
whether the data carries it, and the lightest compromise that fits the card.
"""

from dataclasses import dataclass

from ftkit.errors import ConfigError, near_matches
from ftkit.memory.catalogue import architecture
from ftkit.memory.estimator import Estimate, estimate
from ftkit.memory.fit import fits
from ftkit.memory.hardware import Accelerator, accelerator
from ftkit.memory.shapes import Architecture

GOALS = ("behaviour", "knowledge", "maximum")
FULL_ROWS = 100_000
"""Rows from which full fine-tuning is worth asking for, as the guide puts it."""
FEW_ROWS = 100
EFFECTIVE_BATCH = {"full": 64, "lora": 32, "qlora": 16}
MAX_GRAD_NORM = {"full": 1.0, "lora": 1.0, "qlora": 0.3}
LEARNING_RATE = {"full": 2e-5, "lora": 2e-4, "qlora": 2e-4}


@dataclass(frozen=True)
class Recommendation:
    """What to run, and why.

    Attributes:
        method: full, lora or qlora; None where nothing fits.
        settings: fields of that method's configuration.
        reasons: sentences, in the order of the decisions.
        memory: the estimate behind it; of what does not fit, the one that came nearest.
    """

    method: str | None
    settings: dict[str, float | int | bool]
    reasons: tuple[str, ...]
    memory: Estimate

    def __str__(self) -> str:
        head = f"{self.method}: {self.settings}" if self.method else "Nothing fits."
        return "\n".join([head, *(f"  - {reason}" for reason in self.reasons)])


def recommend(
    model: str | Architecture,
    *,
    rows: int,
    gpu: str | Accelerator,
    goal: str = "behaviour",
    gpus: int = 1,
    sequence_length: int = 2048,
) -> Recommendation:
    """Method and settings for a model, a data set and a machine.

    Args:
        model: as for `estimate`.
        rows: training examples.
        gpu: name of an accelerator, or one made by hand.
        goal: "behaviour" (style, format, a task: the usual case), "knowledge" (a domain that the model does not know),
            or "maximum" (the last bit of quality, whatever it costs).
        gpus: cards; with more than one, FSDP shards over them.
        sequence_length: tokens of the longest rows.

    Raises:
        ModelError, ConfigError: no such model, card or goal; rows or cards not above 0.
    """
    if goal not in GOALS:
        raise ConfigError(f"goal must be one of {', '.join(GOALS)}, not {goal!r}.{near_matches(goal, GOALS)}")
    for name, value in (("rows", rows), ("gpus", gpus), ("sequence_length", sequence_length)):
        if value < 1:
            raise ConfigError(f"{name} must be above 0, not {value!r}.")
    a = model if isinstance(model, Architecture) else architecture(model)
    card = accelerator(gpu) if isinstance(gpu, str) else gpu
    where = f"{gpus} x {card.name}" if gpus > 1 else f"one {card.name}"
    rank = 64 if goal != "behaviour" else 16
    common = {"sequence_length": sequence_length, "shards": gpus, "rank": rank}

    methods, reasons = _methods(rows, goal)
    nearest = None
    for method in methods:
        found = _settings(a, method, card, common)
        if isinstance(found, Estimate):
            reasons.append(
                f"{method} does not fit on {where}: even with one row at a time and checkpointing it may take "
                f"{found.upper_bytes / 1e9:.1f} GB a card."
            )
            if nearest is None or found.upper_bytes < nearest.upper_bytes:
                nearest = found
            continue
        batch, checkpointing, memory = found
        reasons.append(f"{method} fits on {where}: at most {memory.upper_bytes / 1e9:.1f} of {card.memory_gb} GB.")
        if checkpointing:
            reasons.append("Checkpointing makes it fit, for a third to a half more time.")
        accumulation = max(1, EFFECTIVE_BATCH[method] // (batch * gpus))
        settings = {
            "learning_rate": LEARNING_RATE[method],
            "num_epochs": 3 if rows < 10_000 else 1,
            "batch_size": batch,
            "gradient_accumulation_steps": accumulation,
            "use_gradient_checkpointing": checkpointing,
            "max_grad_norm": MAX_GRAD_NORM[method],
            "warmup_ratio": 0.03,
            "weight_decay": 0.01,
            "max_seq_length": sequence_length,
        }
        reasons.append(
            "Small data needs several passes." if rows < 10_000 else "With this many rows one pass is enough."
        )
        if method != "full":
            settings |= {"lora_r": rank, "lora_alpha": 2 * rank}
            reasons.append(
                f"Rank {rank}: {'a behaviour needs little capacity' if rank == 16 else 'the goal needs capacity'}; "
                "alpha = 2 r keeps the update's scale at 2, and the learning rate is ten times full fine-tuning's."
            )
        return Recommendation(method, settings, tuple(reasons), memory)
    reasons.append("Take a smaller model, shorter rows, more cards or a larger one.")
    return Recommendation(None, {}, tuple(reasons), nearest)


def _methods(rows: int, goal: str) -> tuple[list[str], list[str]]:
    """Methods in the order of preference, and why."""
    reasons = []
    if rows < FEW_ROWS:
        reasons.append(f"{rows} rows are few: try a prompt with examples first, and keep it as the baseline.")
    if goal == "behaviour":
        return ["lora", "qlora"], [*reasons, "Behaviour, style and tasks are within reach of adapters."]
    if rows < FULL_ROWS:
        reasons.append(f"Full fine-tuning wants some {FULL_ROWS:,} good rows; with {rows:,} adapters lose nothing.")
        return ["lora", "qlora"], reasons
    return ["full", "lora", "qlora"], [*reasons, "The goal and the data are worth full fine-tuning."]


def _settings(a: Architecture, method: str, card: Accelerator, common: dict) -> tuple[int, bool, Estimate] | Estimate:
    """Batch size, checkpointing and memory of the fastest run that fits; the smallest run's memory if none does.

    Without checkpointing where four rows fit so; with it where they do not; then ever fewer rows.
    """
    for checkpointing, batches in ((False, (16, 8, 4)), (True, (16, 8, 4, 2, 1))):
        for batch in batches:
            run = {**common, "method": method, "batch_size": batch, "use_gradient_checkpointing": checkpointing}
            memory = estimate(a, **run)
            if fits(memory, card) == "yes":
                return batch, checkpointing, memory
    return memory
