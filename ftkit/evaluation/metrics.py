"""Scores of answers against references, without a network: row by row, and over a whole set.

Row scores (exact match, token F1, JSON fields) can be compared row against row between two models; BLEU and chrF exist
for a whole set only. ROUGE is computed by rouge_score, BLEU and chrF by sacrebleu, both of the extra `metrics`.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from ftkit.errors import DataError, MissingDependency

Score = Callable[[str, str], Mapping[str, float]]
References = Sequence[str] | Sequence[Sequence[str]]
"""One reference a prediction, or several."""

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")

# Thai and Lao, Burmese, Khmer, kana, Han: written without spaces, so each letter counts as a word.
_SPACELESS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]")  # fmt: skip # noqa: E501
_KANA = re.compile("[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")


def words(text: str) -> list[str]:
    """Small letters and digits between everything else; in scripts without spaces each letter for itself.

    For ASCII text this is what rouge_score does; that drops every letter of any other script.
    """
    found: list[str] = []
    joined = grows = False  # whether a mark, whether a letter belongs to the last word
    for char in text.lower():
        kind = unicodedata.category(char)[0]
        if kind == "M" and joined:
            found[-1] += char
        elif kind not in "LN":
            joined = grows = False
        else:
            alone = _SPACELESS.match(char) is not None
            if grows and not alone:
                found[-1] += char
            else:
                found.append(char)
            joined, grows = True, not alone
    return found


def exact_match(prediction: str, reference: str) -> dict[str, float]:
    """`exact_match` is 1 where both texts are the same but for white space at their ends."""
    return {"exact_match": float(prediction.strip() == reference.strip())}


def token_f1(prediction: str, reference: str) -> dict[str, float]:
    """`token_f1`: harmonic mean of precision and recall of `words`, each counted as often as it stands in both."""
    given, right = Counter(words(prediction)), Counter(words(reference))
    if not given or not right:
        return {"token_f1": float(given == right)}
    return {"token_f1": 2 * (given & right).total() / (given.total() + right.total())}


def text_scores(prediction: str, reference: str) -> dict[str, float]:
    """`exact_match` and `token_f1`."""
    return exact_match(prediction, reference) | token_f1(prediction, reference)


def json_scores(prediction: str, reference: str) -> dict[str, float]:
    """Scores against a reference that is a JSON object.

    Returns:
        `exact_match`: the same object, whatever the order of its keys and the white space between tokens;
        `valid_json`: the whole prediction parses to an object; `field_accuracy`: share of the reference's fields that
        hold the right value.

    Raises:
        DataError: the reference is no JSON object.
    """
    right, given = parse_object(reference), parse_object(prediction)
    if right is None:
        raise DataError(f"the reference is not a JSON object: {reference[:200]!r}.")
    if given is None:
        return {"exact_match": 0.0, "valid_json": 0.0, "field_accuracy": 0.0}
    hits = [name in given and same_json(given[name], value) for name, value in right.items()]
    share = sum(hits) / len(hits) if hits else float(given == right)
    return {"exact_match": float(same_json(given, right)), "valid_json": 1.0, "field_accuracy": share}


def field_accuracies(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """For each field of the references, all JSON objects, the share of rows that have it right."""
    _check(predictions, references)
    hits: dict[str, list[bool]] = {}
    for prediction, reference in zip(predictions, references, strict=True):
        given = parse_object(prediction) or {}
        for name, value in (parse_object(reference) or {}).items():
            hits.setdefault(name, []).append(name in given and same_json(given[name], value))
    return {name: sum(found) / len(found) for name, found in hits.items()}


def parse_object(text: str) -> dict[str, Any] | None:
    """The JSON object that the whole of `text` is, or None."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # "[" repeated without end exhausts the parser's stack
        return None
    return value if isinstance(value, dict) else None


def same_json(a: Any, b: Any) -> bool:
    """Equal as JSON, where true is not 1."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


def scores_for(references: Sequence[str]) -> Score:
    """`json_scores` where every reference is a JSON object, else `text_scores`."""
    return json_scores if references and all(parse_object(r) is not None for r in references) else text_scores


def rouge_each(predictions: Sequence[str], references: References) -> list[dict[str, float]]:
    """ROUGE-1, -2, -L and -Lsum of every row, F measures between 0 and 1; of several references the best counts.

    Lsum takes each line as a sentence. Words are those of `words`.

    Raises:
        MissingDependency: rouge_score is not installed.
        DataError: there is nothing to score, or not as many references as predictions.
    """
    _check(predictions, references)
    need("rouge_score", "ROUGE")
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import Tokenizer

    class Words(Tokenizer):
        def tokenize(self, text: str) -> list[str]:
            return words(text)

    scorer = RougeScorer(list(ROUGE_TYPES), tokenizer=Words())
    rows = zip(_lists(references), predictions, strict=True)
    return [{k: s.fmeasure for k, s in scorer.score_multi(right, given).items()} for right, given in rows]


def rouge(predictions: Sequence[str], references: References) -> dict[str, float]:
    """Means of `rouge_each` over the rows."""
    rows = rouge_each(predictions, references)
    return {name: sum(row[name] for row in rows) / len(rows) for name in ROUGE_TYPES}


def bleu(predictions: Sequence[str], references: References, tokenize: str | None = None) -> dict[str, Any]:
    """Corpus BLEU by sacrebleu, 0 to 100.

    Args:
        predictions: one text a row.
        references: one text a row, or a list of texts a row (not sacrebleu's transposed lists).
        tokenize: sacrebleu's tokenizer. Default: "zh" for Chinese, "char" for Japanese, Thai and other scripts without
            spaces, "13a" elsewhere.

    Returns:
        `bleu`, `precisions` (four, in percent) and sacrebleu's `signature`, without which a BLEU cannot be compared.
        Where no reference has four words, every answer would score 0; n-grams up to the length that the answers have
        are counted then (`eff:yes`).
    """
    _check(predictions, references)
    need("sacrebleu", "BLEU")
    from sacrebleu.metrics import BLEU

    right = _lists(references)
    transposed = _transposed(right)
    tokenize = tokenize or bleu_tokenizer([text for texts in right for text in texts])
    cut = BLEU(tokenize=tokenize).tokenizer
    # Decided by the references, not by the answers: two models are then scored alike.
    short = all(len(cut(text).split()) < 4 for texts in right for text in texts)
    metric = BLEU(tokenize=tokenize, effective_order=short)
    score = metric.corpus_score(list(predictions), transposed)
    return {"bleu": score.score, "precisions": score.precisions, "signature": str(metric.get_signature())}


def chrf(predictions: Sequence[str], references: References) -> dict[str, Any]:
    """chrF2 by sacrebleu over the whole set, 0 to 100: character n-grams, so every script counts alike."""
    _check(predictions, references)
    need("sacrebleu", "chrF")
    from sacrebleu.metrics import CHRF

    metric = CHRF()
    score = metric.corpus_score(list(predictions), _transposed(_lists(references)))
    return {"chrf": score.score, "signature": str(metric.get_signature())}


def bleu_tokenizer(texts: Sequence[str]) -> str:
    """sacrebleu's tokenizer for these texts, among those that need no further package."""
    letters = [char for text in texts for char in text if char.isalpha()]
    spaceless = [char for char in letters if _SPACELESS.match(char)]
    if 2 * len(spaceless) <= len(letters):
        return "13a"
    kana, han = (sum(bool(pattern.match(char)) for char in spaceless) for pattern in (_KANA, _HAN))
    return "zh" if 2 * han > len(spaceless) and 20 * kana < han else "char"


def need(package: str, what: str, extra: str = "metrics") -> None:
    """Raise MissingDependency, with the command that installs it, where `package` is not installed."""
    if find_spec(package) is None:
        raise MissingDependency(f"{what} needs {package}; run: pip install 'ftkit[{extra}]'")


def _lists(references: References) -> list[list[str]]:
    return [[reference] if isinstance(reference, str) else list(reference) for reference in references]


def _transposed(references: list[list[str]]) -> list[list[str | None]]:
    """sacrebleu's layout: the first reference of every row, then the second, None where a row has no more."""
    most = max(map(len, references))
    return [[texts[i] if i < len(texts) else None for texts in references] for i in range(most)]


def _check(predictions: Sequence[str], references: Sequence) -> None:
    if len(predictions) != len(references):
        raise DataError(f"{len(predictions)} predictions and {len(references)} references: there must be one for each.")
    if not len(predictions):
        raise DataError("there are no answers to score; give at least one.")
    empty = next((i for i, r in enumerate(references) if not isinstance(r, str) and not len(r)), None)
    if empty is not None:
        raise DataError(f"row {empty + 1} has no reference; leave it out or give one.")
