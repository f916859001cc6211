"""A model's answers to held-out rows, scored against the references."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftkit.errors import DataError
from ftkit.evaluation.generate import Generation, generations
from ftkit.evaluation.metrics import Score, exact_match

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Answers:
    """What one model answered: generations, references and scores, a row each and in the rows' order."""

    generations: list[Generation]
    references: list[str]
    scores: list[Mapping[str, float]]

    @property
    def predictions(self) -> list[str]:
        return [generation.text for generation in self.generations]

    @property
    def stopped(self) -> list[bool]:
        """Whether each answer ended by itself, and was not cut."""
        return [generation.finish == "stopped" for generation in self.generations]

    @property
    def kept(self) -> int:
        """How many were read from the cache, where the same model had put them before."""
        return sum(generation.kept for generation in self.generations)

    def column(self, name: str) -> list[float]:
        """One score of every row, e.g. for a paired comparison with another model's."""
        return [row[name] for row in self.scores]

    def mean(self, name: str) -> float:
        return sum(self.column(name)) / len(self.scores)


def answer(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, Any]],
    score: Score = exact_match,
    **generation,
) -> Answers:
    """Let the model answer each row's prompt and score it against the row's last message.

    Args:
        rows: in the messages format, with `tools` where there are any; the last message, the reference, is never
            shown to the model.
        score: maps a prediction and its reference to named numbers.
        generation: options of `generations`: `max_new_tokens`, `batch_size`, `keep`, ...

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("there are no rows to evaluate on; give at least one.")
    given = generations(model, tokenizer, list(rows), **generation)
    references = [row["messages"][-1]["content"] for row in rows]
    return Answers(given, references, [score(g.text, r) for g, r in zip(given, references, strict=True)])
