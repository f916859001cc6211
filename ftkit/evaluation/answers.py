"""A model's answers to held-out rows, scored against the references."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ftkit.errors import DataError
from ftkit.evaluation.generate import generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Score = Callable[[str, str], Mapping[str, float]]


def exact_match(prediction: str, reference: str) -> dict[str, float]:
    """`exact_match` is 1 where both texts are the same but for white space at their ends."""
    return {"exact_match": float(prediction.strip() == reference.strip())}


@dataclass(frozen=True)
class Answers:
    """What one model answered: predictions, references and scores, a row each and in the rows' order."""

    predictions: list[str]
    references: list[str]
    scores: list[Mapping[str, float]]

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
        generation: `max_new_tokens`, `batch_size` and `progress` of `generate`.

    Raises:
        DataError: there are no rows.
    """
    if not rows:
        raise DataError("there are no rows to evaluate on; give at least one.")
    predictions = generate(model, tokenizer, list(rows), **generation)
    references = [row["messages"][-1]["content"] for row in rows]
    return Answers(predictions, references, [score(p, r) for p, r in zip(predictions, references, strict=True)])
