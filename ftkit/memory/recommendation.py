"""`recommend`: model, rows, card and goal in; method and settings out, each with its reason.

`RULES` is the selection flowchart, and `recommend` walks it: what the goal needs, whether the data carries it, and the
lightest compromise that fits the card. The book draws its figure from the same table.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ftkit.errors import ConfigError, near_matches
from ftkit.memory.catalogue import architecture
from ftkit.memory.estimator import METHODS, Estimate, estimate
from ftkit.memory.fit import NEEDS_FSDP, fits
from ftkit.memory.hardware import Accelerator, accelerator
from ftkit.memory.shapes import Architecture

GOALS = ("behaviour", "knowledge", "maximum")
FULL_ROWS = 100_000
"""Rows from which full fine-tuning is worth asking for, as the guide puts it."""
FEW_ROWS = 100
SEVERAL_PASSES = 10_000
"""Rows below which the data is passed three times."""
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
        path: the questions of `RULES` that were asked, each with its answer.
        memory: the estimate behind it; of what does not fit, the one that came nearest.
    """

    method: str | None
    settings: dict[str, float | int | bool]
    reasons: tuple[str, ...]
    path: tuple[tuple[str, bool], ...]
    memory: Estimate

    def __str__(self) -> str:
        head = f"{self.method}: {self.settings}" if self.method else "Nothing fits."
        return "\n".join([head, *(f"  - {reason}" for reason in self.reasons)])


@dataclass(frozen=True)
class Case:
    """What a user has and wants, and what of it fits: the arguments of `recommend`, checked and looked up."""

    model: Architecture
    rows: int
    card: Accelerator
    goal: str
    gpus: int
    sequence_length: int

    @property
    def rank(self) -> int:
        return 16 if self.goal == "behaviour" else 64

    @cached_property
    def runs(self) -> dict[str, Estimate]:
        """By method: the fastest run that fits; the smallest run where none does."""
        return {method: self._run(method) for method in METHODS}

    def fits(self, method: str) -> bool:
        return fits(self.runs[method], self.card) == "yes"

    def _run(self, method: str) -> Estimate:
        # Without checkpointing where four rows fit so; with it where they do not; then ever fewer rows.
        common = {
            "method": method,
            # As ftkit's trainer runs it; FSDP gathers bf16 weights a layer at a time, and autocast would keep them all.
            "precision": "autocast" if method == "full" and self.gpus == 1 else "mixed",
            "rank": self.rank,
            "sequence_length": self.sequence_length,
            "shards": self.gpus,
        }
        for checkpointing, batches in ((False, (16, 8, 4)), (True, (16, 8, 4, 2, 1))):
            for batch in batches:
                run = estimate(self.model, batch_size=batch, use_gradient_checkpointing=checkpointing, **common)
                if fits(run, self.card) == "yes":
                    return run
        return run


@dataclass(frozen=True)
class Question:
    """One box of the flowchart.

    Attributes:
        text: the question.
        asks: answers it for a case.
        yes, no: where the answer leads: another question, a method, or "nothing".
        because: the reason that `recommend` gives for the answer.
    """

    text: str
    asks: Callable[[Case], bool]
    yes: str
    no: str
    because: Callable[[Case, bool], str]


def _goal(case: Case, yes: bool) -> str:
    return "The goal needs capacity." if yes else "Behaviour, style and tasks are within reach of adapters."


def _rows(case: Case, yes: bool) -> str:
    if yes:
        return "The goal and the data are worth full fine-tuning."
    return f"Full fine-tuning wants some {FULL_ROWS:,} good rows, and there are {case.rows:,}: adapters will do."


def _memory(method: str) -> Callable[[Case, bool], str]:
    def because(case: Case, yes: bool) -> str:
        most = case.runs[method].upper_bytes / 1e9
        where = f"{case.gpus} x {case.card.name}" if case.gpus > 1 else f"one {case.card.name}"
        if yes:
            return f"{method} fits on {where}: at most {most:.1f} of {case.card.memory_gb} GB a card."
        return (
            f"{method} does not fit on {where}: even with one row at a time and checkpointing it may take "
            f"{most:.1f} GB a card."
        )

    return because


RULES = {
    "goal": Question("More than a new behaviour?", lambda c: c.goal != "behaviour", "rows", "lora fits", _goal),
    "rows": Question(f"{FULL_ROWS:,} rows or more?", lambda c: c.rows >= FULL_ROWS, "full fits", "lora fits", _rows),
    "full fits": Question("Does full fit?", lambda c: c.fits("full"), "full", "lora fits", _memory("full")),
    "lora fits": Question("Does LoRA fit?", lambda c: c.fits("lora"), "lora", "qlora fits", _memory("lora")),
    "qlora fits": Question("Does QLoRA fit?", lambda c: c.fits("qlora"), "qlora", "nothing", _memory("qlora")),
}
"""The flowchart, from the top down."""
OUTCOMES = {"full": "full", "lora": "LoRA", "qlora": "QLoRA", "nothing": "smaller model or more GPUs"}
"""What the questions lead to."""


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
        gpus: cards; with more than one, FSDP shards over them, and a reason says that ftkit's trainers do not.
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
    case = Case(a, rows, card, goal, gpus, sequence_length)

    reasons, path, at = [], [], next(iter(RULES))
    if rows < FEW_ROWS:
        reasons.append(f"{rows} rows are few: try a prompt with examples first, and keep it as the baseline.")
    if gpus > 1:
        reasons.append(f"{gpus} cards share a run by {NEEDS_FSDP}.")
    while at in RULES:
        question = RULES[at]
        answer = question.asks(case)
        path.append((at, answer))
        reasons.append(question.because(case, answer))
        at = question.yes if answer else question.no
    if at not in METHODS:
        how = f", which needs {NEEDS_FSDP}" if gpus == 1 else ""
        reasons.append(f"Take a smaller model, shorter rows, a larger card, or more cards{how}.")
        nearest = min((case.runs[m] for m in ("lora", "qlora")), key=lambda run: run.upper_bytes)
        return Recommendation(None, {}, tuple(reasons), tuple(path), nearest)
    settings, why = _settings(case, at)
    return Recommendation(at, settings, (*reasons, *why), tuple(path), case.runs[at])


def _settings(case: Case, method: str) -> tuple[dict[str, float | int | bool], list[str]]:
    """Fields of the method's configuration, and the reasons for them."""
    run, reasons = case.runs[method].settings, []
    if run.checkpointing:
        reasons.append("Checkpointing makes it fit, for a third to a half more operations.")
    small = case.rows < SEVERAL_PASSES
    reasons.append("Small data needs several passes." if small else "With this many rows one pass is enough.")
    settings = {
        "learning_rate": LEARNING_RATE[method],
        "num_epochs": 3 if small else 1,
        "batch_size": run.batch_size,
        "gradient_accumulation_steps": max(1, EFFECTIVE_BATCH[method] // (run.batch_size * case.gpus)),
        "use_gradient_checkpointing": run.checkpointing,
        "max_grad_norm": MAX_GRAD_NORM[method],
        "warmup_ratio": 0.03,
        "weight_decay": 0.01,
        "max_seq_length": case.sequence_length,
    }
    if method != "full":
        settings |= {"lora_r": case.rank, "lora_alpha": 2 * case.rank}
        reasons.append(
            f"Rank {case.rank}: {'a behaviour needs little capacity' if case.rank == 16 else 'the goal needs capacity'}"
            "; alpha = 2 r keeps the update's scale at 2, and the learning rate is ten times full fine-tuning's."
        )
    return settings, reasons
