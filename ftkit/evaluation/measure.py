"""What one model gives on rows and texts, and what two models' results on the same rows come to."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from ftkit.evaluation import metrics
from ftkit.evaluation.answers import Answers, answer
from ftkit.evaluation.comparison import Comparison, compare
from ftkit.evaluation.errors_by_category import Categorise, analyse
from ftkit.evaluation.perplexity import Likelihood, perplexity, row_likelihoods
from ftkit.evaluation.rows import asked
from ftkit.evaluation.uncertainty import Interval, across_seeds, paired_bootstrap, wilson

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SAMPLES_KEPT = 10


@dataclass
class Measured:
    """One model's results.

    Attributes:
        result: for JSON, by part of the evaluation.
        scores: row scores by name, (rows,) each, to be compared with another model's.
        answers, texts, general: likelihoods of the reference answers, the test texts and the general texts.
    """

    result: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, list[float]] = field(default_factory=dict)
    answers: list[Likelihood] = field(default_factory=list)
    texts: list[Likelihood] = field(default_factory=list)
    general: list[Likelihood] = field(default_factory=list)


def measure_answers(
    measured: Measured,
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: Sequence[dict[str, Any]],
    *,
    generation: Mapping[str, Any],
    seeds: Sequence[int],
    corpus_metrics: Mapping[str, Callable],
    score: metrics.Score | None,
    categorize_fn: Categorise | None,
    reading: Mapping[str, Any] | None,
) -> None:
    """Let the model answer `rows` and fill in `measured.result["instruction_following"]`, `scores` and `answers`.

    Args:
        generation: options of `generations` but for its seed.
        seeds: one for each answer that is drawn to a prompt.
        corpus_metrics: name to function of predictions and references: those of rouge, bleu and chrf that are wanted.
        score: row score. Default: `metrics.scores_for` the references.
        reading: options of `row_likelihoods`; None leaves the references' perplexity out.
    """
    references = [row["messages"][-1]["content"] for row in rows]
    score = score or metrics.scores_for(references)
    drawn: list[Answers] = [answer(model, tokenizer, rows, score, **generation, seed=seed) for seed in seeds]
    given = drawn[0]
    columns = {name: [one.column(name) for one in drawn] for name in given.scores[0]}
    if "rouge" in corpus_metrics:
        each = [metrics.rouge_each(one.predictions, references) for one in drawn]
        columns["rougeL"] = [[row["rougeL"] for row in one] for one in each]
    # Rows are the units of the bootstrap; the draws to one row are averaged before.
    measured.scores = {name: [_mean(draws) for draws in zip(*c, strict=True)] for name, c in columns.items()}
    finishes = Counter(generation.finish for one in drawn for generation in one.generations)
    result: dict[str, Any] = {
        "rows": len(rows),
        "scores": {name: asdict(interval(values)) for name, values in measured.scores.items()},
        "finish": dict(finishes),
        "kept": given.kept,
        "row_scores": measured.scores,
    }
    if len(drawn) > 1:
        result["by_seed"] = {name: asdict(across_seeds([_mean(v) for v in c])) for name, c in columns.items()}
    result |= {name: compute(given.predictions, references) for name, compute in corpus_metrics.items()}
    if score is metrics.json_scores:
        result["fields"] = metrics.field_accuracies(given.predictions, references)
    if reading is not None:
        measured.answers = row_likelihoods(model, tokenizer, rows, **reading)
        result["answer_perplexity"] = asdict(perplexity(measured.answers))
    prompts = [asked(row) for row in rows]
    # A strict text match would call "Paris." an error; of JSON and of a user's score, exact_match is the judge.
    judged = score is not metrics.text_scores and "exact_match" in columns
    right = given.column("exact_match") if judged else None
    found = analyse(
        prompts, given.predictions, references, categorize_fn=categorize_fn, right=right, stopped=given.stopped
    )
    result["errors"] = found.as_dict()
    result["samples"] = [
        {"instruction": prompt, "reference": reference, "prediction": prediction}
        for prompt, reference, prediction in list(zip(prompts, references, given.predictions, strict=True))[
            :SAMPLES_KEPT
        ]
    ]
    measured.result["instruction_following"] = result


def compare_measured(base: Measured, tuned: Measured, seed: int) -> dict[str, Any]:
    """`comparison`, by score, and `forgetting`, where general texts were read, of two models on the same rows."""
    found = {name: compare(scores, tuned.scores[name], seed=seed) for name, scores in base.scores.items()}
    for name in ("answers", "texts"):
        if getattr(base, name):
            found[f"{name}_bits_per_byte"] = compare_bits(getattr(base, name), getattr(tuned, name), seed)
    made: dict[str, Any] = {"comparison": {name: _as_dict(c) for name, c in found.items()}}
    if base.general:
        forgotten = compare_bits(base.general, tuned.general, seed)
        made["forgetting"] = {"texts": len(base.general), "metric": "bits_per_byte"} | _as_dict(forgotten)
    return made


def compare_bits(base: Sequence[Likelihood], tuned: Sequence[Likelihood], seed: int) -> Comparison:
    """Bits per byte of two models on the same texts; every byte weighs the same, so the means are the totals'."""
    pairs = [(a, b) for a, b in zip(base, tuned, strict=True) if a.bytes and b.bytes]
    # Two tokenizers may leave first tokens of different lengths out, hence the mean of both counts.
    weights = [(a.bytes + b.bytes) / 2 for a, b in pairs]
    before, after = ([text.bits_per_byte for text in side] for side in zip(*pairs, strict=True))
    return compare(before, after, weights=weights, higher_is_better=False, seed=seed)


def interval(scores: Sequence[float]) -> Interval:
    """Of a mean score: Wilson's for right and wrong, else the bootstrap's."""
    if set(scores) <= {0, 1}:
        return wilson(int(sum(scores)), len(scores))
    return paired_bootstrap([0.0] * len(scores), scores)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _as_dict(comparison: Comparison) -> dict[str, Any]:
    return asdict(comparison) | {"verdict": comparison.verdict, "says": str(comparison)}
