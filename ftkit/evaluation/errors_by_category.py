"""What kind of mistake a wrong answer is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ftkit.errors import DataError
from ftkit.evaluation.metrics import json_scores, parse_object, token_f1, words

CATEGORIES = {
    "empty": "nothing but white space",
    "repeated": "ends in the same piece three times over",
    "never stopped": "was cut, where the model should have ended its turn",
    "wrong format": "the reference is a JSON object and the answer is none, or has other keys",
    "near miss": "all but one field right, the reference among other words, or token F1 of at least 0.8",
    "too long": "more than twice the reference, and at least 20 characters more",
    "too short": "less than half the reference, and at least 20 characters less",
    "wrong content": "none of these",
}
"""Category: what it means. A wrong answer belongs to the first that fits."""

Categorise = Callable[[str, str, str], str]
"""(prompt, prediction, reference) to the name of a category."""

_NEAR_F1 = 0.8
_LENGTH_MARGIN = 20  # characters
_REPEATS, _SHORTEST_REPEATED = 3, 12  # times; characters that the repetition must fill, so that "ha ha ha" is none


@dataclass(frozen=True)
class ErrorAnalysis:
    """Wrong answers by category.

    Attributes:
        total: answers looked at.
        errors: row numbers (from 0) by category, in the order of `CATEGORIES`, then the user's own; empty ones absent.
        examples: for each category its first few rows: `row`, `prompt`, `prediction`, `reference`, uncut.
    """

    total: int
    errors: dict[str, list[int]]
    examples: dict[str, list[dict[str, Any]]]

    @property
    def rates(self) -> dict[str, float]:
        """Share of all answers that fell into each category."""
        return {name: len(rows) / self.total for name, rows in self.errors.items()}

    def as_dict(self) -> dict[str, Any]:
        """The guide's keys, with rates: `total`, `total_errors`, `error_rate`, `errors_by_category`,
        `rates_by_category` and `sample_errors`."""
        count = sum(map(len, self.errors.values()))
        return {
            "total": self.total,
            "total_errors": count,
            "error_rate": count / self.total,
            "errors_by_category": {name: len(rows) for name, rows in self.errors.items()},
            "rates_by_category": self.rates,
            "sample_errors": self.examples,
        }


def analyse(
    prompts: Sequence[str],
    predictions: Sequence[str],
    references: Sequence[str],
    *,
    categorize_fn: Categorise | None = None,
    right: Sequence[float] | None = None,
    stopped: Sequence[bool] | None = None,
    examples: int = 3,
) -> ErrorAnalysis:
    """Sort wrong answers into categories.

    Args:
        prompts, predictions, references: one a row.
        categorize_fn: names the category of a wrong answer instead of `category`.
        right: 1 for each answer that counts as right, e.g. a model's `exact_match`. Default: `same`.
        stopped: whether each answer ended by itself; None where that is not known.
        examples: rows kept of each category.

    Raises:
        DataError: the lists differ in length, or are empty.
    """
    given = {"prompts": prompts, "predictions": predictions, "references": references}
    given |= {name: column for name, column in (("right", right), ("stopped", stopped)) if column is not None}
    if len({len(column) for column in given.values()}) > 1:
        lengths = ", ".join(f"{len(column)} {name}" for name, column in given.items())
        raise DataError(f"error analysis needs one of each a row, not {lengths}.")
    if not len(predictions):
        raise DataError("there are no answers to analyse; give at least one.")
    found: dict[str, list[int]] = {}
    for i, (prompt, prediction, reference) in enumerate(zip(prompts, predictions, references, strict=True)):
        if same(prediction, reference) if right is None else right[i]:
            continue
        if categorize_fn:
            name = categorize_fn(prompt, prediction, reference)
        else:
            name = category(prediction, reference, stopped=stopped is None or stopped[i])
        found.setdefault(name, []).append(i)
    names = [name for name in CATEGORIES if name in found] + sorted(set(found) - set(CATEGORIES))
    shown = {
        name: [
            {"row": i, "prompt": prompts[i], "prediction": predictions[i], "reference": references[i]}
            for i in found[name][:examples]
        ]
        for name in names
    }
    return ErrorAnalysis(len(predictions), {name: found[name] for name in names}, shown)


def same(prediction: str, reference: str) -> bool:
    """Whether an answer is right: the same JSON object, or the same words, whatever their case and punctuation; texts
    without any word must be the same character by character."""
    if parse_object(reference) is not None:
        return bool(json_scores(prediction, reference)["exact_match"])
    if not words(reference):
        return prediction.strip() == reference.strip()
    return words(prediction) == words(reference)


def category(prediction: str, reference: str, *, stopped: bool = True) -> str:
    """The first of `CATEGORIES` that a wrong answer belongs to."""
    text, right = prediction.strip(), reference.strip()
    if not text:
        return "empty"
    if is_repeated(text):
        return "repeated"
    if not stopped:
        return "never stopped"
    wanted = parse_object(right)
    if wanted is not None:
        given = parse_object(text)
        if given is None or set(given) != set(wanted):
            return "wrong format"
        return "near miss" if _fields_wrong(text, right, len(wanted)) <= 1 else "wrong content"
    if _holds(words(text), words(right)) or token_f1(text, right)["token_f1"] >= _NEAR_F1:
        return "near miss"
    if len(text) > 2 * len(right) and len(text) - len(right) >= _LENGTH_MARGIN:
        return "too long"
    if 2 * len(text) < len(right) and len(right) - len(text) >= _LENGTH_MARGIN:
        return "too short"
    return "wrong content"


def is_repeated(text: str) -> bool:
    """Whether `text` ends in one piece three times over: a cut may fall anywhere in it, and it still does."""
    for size in range(1, len(text) // _REPEATS + 1):
        times = max(_REPEATS, -(-_SHORTEST_REPEATED // size))
        if text.endswith(text[-size:] * times):
            return True
    return False


def _fields_wrong(text: str, reference: str, fields: int) -> int:
    return round((1 - json_scores(text, reference)["field_accuracy"]) * fields)


def _holds(given: list[str], wanted: list[str]) -> bool:
    """Whether the words of the reference stand in the answer, in one piece."""
    return bool(wanted) and any(given[i : i + len(wanted)] == wanted for i in range(len(given) - len(wanted) + 1))
