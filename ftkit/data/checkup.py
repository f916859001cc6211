"""`doctor`: data looked over as a model will see it, before anything is trained on it."""

from collections import Counter
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftkit.data import batches
from ftkit.data.chat import IGNORE_INDEX, encode_rows
from ftkit.data.cleaning import clean_row, quality_problem, row_text
from ftkit.data.diagnosis import Diagnosis, Finding, Severity
from ftkit.data.duplicates import contaminated, drop_near, exact_keys, first_of_each, near_duplicates
from ftkit.data.prepared import metadata, vocabulary_key
from ftkit.data.sources import Report, is_prepared, load_data, read
from ftkit.data.table import restore
from ftkit.errors import DataError
from ftkit.models.families import stop_token_ids
from ftkit.models.loading import load_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHOWN = 2
"""Rows of the data shown with their trained tokens marked."""
SHOWN_TOKENS = 400
FEW_TRAINED = 0.01
"""Share of trained tokens below which most of the work goes into prompts."""

Located = list[tuple[str, str, dict[str, Any]]]


class _Findings:
    """Collects rows by fault, with the first as the example."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Severity, str]] = {}
        self.rows: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def add(self, check: str, severity: Severity, message: str, example: str = "", rows: int = 1) -> None:
        self.found.setdefault(check, (severity, message))
        self.examples.setdefault(check, example[:200])
        self.rows[check] += rows

    def all(self) -> list[Finding]:
        made = [Finding(c, s, self.rows[c], m, self.examples[c]) for c, (s, m) in self.found.items()]
        return sorted(made, key=lambda finding: (["error", "warning", "info"].index(finding.severity), -finding.rows))


def doctor(
    data: Any,
    model: "str | PreTrainedTokenizerBase" = "embedded",
    *,
    max_seq_length: int = 2048,
    train_on: str = "last",
    near_duplicate_threshold: float = 0.8,
    seed: int = 42,
) -> Diagnosis:
    """Look data over: masks, stop tokens, BOS, lengths, prefixes, duplicates, test-set overlap, encodings.

    Args:
        data: rows of any kind that `ftkit.data.load_data` reads, or a prepared folder. They are held in memory.
        model: name of the model, as in `ftkit.load`, or its tokenizer.
        max_seq_length: longest row in tokens that will be trained; a prepared folder has its own.
        train_on: as in `ftkit.data.encode_rows`; a prepared folder has its own.
        near_duplicate_threshold: Jaccard similarity of character 5-grams.
        seed: of MinHash.

    Raises:
        DataError: the source cannot be read at all.
        ModelError: no such model.
    """
    tokenizer = load_tokenizer(model) if isinstance(model, str) else model
    findings, report = _Findings(), Report()
    if is_prepared(data):
        made = metadata(data)
        max_seq_length = made["max_seq_length"]
        rows, encoded = _prepared(data, made, tokenizer, findings)
        counts = {"rows": len(encoded), "prefix_violations": made["prefix_violations"]}
    else:
        rows = list(read(data, report))
        encoded, violations = _encoded(rows, tokenizer, train_on, findings)
        counts = {"rows": report.read, "usable_rows": len(rows), "prefix_violations": violations}
        _unreadable(report, findings)
    if counts["prefix_violations"]:
        findings.add(
            "prefix_violation",
            "error",
            "the prompt of generation is no exact prefix of what is trained, so the model is asked otherwise than it "
            "was taught; use a template without that fault.",
            rows=counts["prefix_violations"],
        )
    lengths = [len(row["input_ids"]) for _, row in encoded]
    for where, row in encoded:
        _check_tokens(where, row, tokenizer, max_seq_length, findings)
    trained = sum(label != IGNORE_INDEX for _, row in encoded for label in row["labels"])
    counts |= {"tokens": sum(lengths), "trained_tokens": trained, "mask_coverage": trained / max(sum(lengths), 1)}
    if encoded and counts["mask_coverage"] < FEW_TRAINED:
        findings.add(
            "few_trained_tokens",
            "error" if not trained else "warning",
            f"{counts['mask_coverage']:.2%} of the tokens are trained.",
            rows=len(encoded),
        )
    if not encoded:
        findings.add("no_rows", "error", "there is no row that could be trained on.", rows=report.read)
    _check_texts(rows, tokenizer, findings)
    _check_duplicates(rows, near_duplicate_threshold, seed, findings)
    _check_overlap(rows, findings)
    name = model if isinstance(model, str) else model.name_or_path or type(model).__name__
    shown = [_pieces(row, tokenizer) for _, row in encoded[:SHOWN]]
    return Diagnosis(_name(data), name, counts, findings.all(), _histogram(lengths), shown)


def _prepared(folder, made: dict, tokenizer, findings: _Findings) -> tuple[Located, list[tuple[str, dict]]]:
    if made["vocabulary"] != vocabulary_key(tokenizer):
        findings.add(
            "other_vocabulary", "error", f"prepared for {made['model_name']}: its ids mean something else here."
        )
    rows, encoded = [], []
    for split, table in load_data(folder).items():
        for number, row in enumerate(table, start=1):
            where = f"{split}, row {number}"
            if row.get("messages") or row.get("text"):
                rows.append((split, where, restore(row)))
            encoded.append((where, row))
    return rows, encoded


def _encoded(rows: Located, tokenizer, train_on: str, findings: _Findings) -> tuple[list[tuple[str, dict]], int]:
    encoded, violations = [], 0
    for _, where, row in rows:
        try:
            made = encode_rows(tokenizer, [row], train_on=train_on, on_mismatch="common_prefix")[0]
        except DataError as error:
            findings.add("cannot_be_rendered", "error", str(error), where)
            continue
        violations += made.mismatches
        encoded += [(where, ids) for ids in made.rows]
    return encoded, violations


def _unreadable(report: Report, findings: _Findings) -> None:
    for reason, count in report.dropped.items():
        name, severity = reason.replace(" ", "_"), "warning" if report.kept else "error"
        findings.add(name, severity, "rows that cannot be used are left out.", report.examples[reason][0], count)
    if len(report.formats) > 1:
        formats = ", ".join(f"{count:,} {name}" for name, count in report.formats.most_common())
        findings.add("mixed_formats", "warning", f"rows of several formats: {formats}.", rows=report.kept)


def _check_tokens(where: str, row: dict, tokenizer, max_seq_length: int, findings: _Findings) -> None:
    ids, labels = row["input_ids"], row["labels"]
    begins = [i for i, p in enumerate(row.get("position_ids") or [0]) if p == 0] or [0]
    if len(ids) > max_seq_length:
        what = f"longer than {max_seq_length} tokens: left out, or its answer is cut."
        findings.add("too_long", "warning", what, f"{where}: {len(ids)} tokens")
    if any(label not in (IGNORE_INDEX, token) for label, token in zip(labels, ids, strict=True)):
        findings.add("labels_are_not_the_ids", "error", "a label is another token than the one at its place.", where)
    stops, bos = set(stop_token_ids(tokenizer)), tokenizer.bos_token_id
    uses_bos = bos is not None and tokenizer("x")["input_ids"][:1] == [bos]
    for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
        part, targets = ids[begin:end], labels[begin:end]
        trained = [i for i, label in enumerate(targets) if label != IGNORE_INDEX and i]
        if not trained:
            findings.add("no_target", "error", "a row without a single trained token.", where)
            continue
        last = trained[-1]
        if len(trained) > 1 and tokenizer.pad_token_id is not None:
            if part[-2:] == [tokenizer.pad_token_id] * 2 and {last, last - 1} <= set(trained):
                findings.add("padding_trained", "error", "padding is trained; mask it by position.", where)
        if part[last] not in stops:
            what = "an answer is trained without the token that ends it: the model would not learn to stop."
            cut = len(part) >= max_seq_length
            findings.add("truncated_answer" if cut else "stop_not_trained", "warning" if cut else "error", what, where)
        if uses_bos and part.count(bos) != 1:
            what = "this tokenizer's rows begin with one BOS; more or none shifts what the model knows."
            findings.add("bos_count", "error", what, f"{where}: {part.count(bos)} BOS")


def _check_texts(rows: Located, tokenizer, findings: _Findings) -> None:
    control = [token for token in tokenizer.all_special_tokens if len(token) > 3]
    for _, where, row in rows:
        contents = [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]
        text = "\n".join(contents)
        if found := next((token for token in control if token in text), None):
            what = "a special token stands in the text: it is read as the token, not as its letters. Was the chat "
            findings.add("special_token_in_text", "error", f"{what}template applied already?", f"{where}: {found}")
        if quality_problem(row_text(row)) == "wrong encoding":
            what = "characters that come from reading a file in the wrong encoding."
            findings.add("odd_encoding", "warning", what, row_text(row))
        if clean_row(row) != row:
            what = "control or zero-width characters, or blank lines around a text; `ftkit prepare` removes them."
            findings.add("unclean_text", "info", what, where)


def _check_duplicates(rows: Located, threshold: float, seed: int, findings: _Findings) -> None:
    texts = [row_text(row) for *_, row in rows]
    count = len(texts)
    first = first_of_each(exact_keys(batches.whole(row) for *_, row in rows)) if rows else np.empty(0)
    repeats = np.flatnonzero(first != np.arange(count))
    if len(repeats):
        what = "rows that stand more than once; `ftkit prepare` keeps the first."
        findings.add("exact_duplicates", "warning", what, texts[repeats[0]], len(repeats))
    pairs = near_duplicates(lambda indices: [texts[i] for i in indices], count, threshold=threshold, seed=seed)
    near = np.flatnonzero(~drop_near(pairs, count))
    near = np.setdiff1d(near, repeats)
    if len(near):
        what = f"rows that repeat another to {threshold:.0%} or more; `ftkit prepare` keeps the first."
        findings.add("near_duplicates", "warning", what, texts[near[0]], len(near))


def _check_overlap(rows: Located, findings: _Findings) -> None:
    train = [(where, row) for split, where, row in rows if split == "train"]
    for held_out in ("test", "validation"):
        references = [unit for split, _, row in rows if split == held_out for unit in batches.units(row)]
        if not references or not train:
            continue
        units = [(where, unit) for where, row in train for unit in batches.units(row)]
        hits = contaminated([unit for _, unit in units], references)
        places = dict(unit for unit, hit in zip(units, hits, strict=True) if hit)
        if places:
            what = f"training rows hold a prompt or an answer of the {held_out} split: its score would be too good."
            findings.add(f"{held_out}_overlap", "error", what, next(iter(places.values())), len(places))


def _pieces(row: dict, tokenizer) -> list[tuple[str, bool]]:
    """The row's text in stretches of trained and untrained tokens; of a long row, its beginning and its end."""
    marked = [(token, label != IGNORE_INDEX) for token, label in zip(row["input_ids"], row["labels"], strict=True)]
    if len(marked) <= SHOWN_TOKENS:
        return _stretches(marked, tokenizer)
    half = SHOWN_TOKENS // 2
    middle = (f" [{len(marked) - 2 * half} tokens] ", False)
    return [*_stretches(marked[:half], tokenizer), middle, *_stretches(marked[-half:], tokenizer)]


def _stretches(marked: list[tuple[int, bool]], tokenizer) -> list[tuple[str, bool]]:
    return [
        (tokenizer.decode([token for token, _ in part]), trained)
        for trained, part in groupby(marked, key=lambda pair: pair[1])
    ]


def _histogram(lengths: Iterable[int]) -> list[tuple[int, int]]:
    """Rows by the power of two that bounds their length."""
    bounds = Counter(1 << max(0, length - 1).bit_length() for length in lengths)
    return sorted(bounds.items())


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else f"a {type(data).__name__}"
