"""`doctor`: data looked over as a model will see it, before anything is trained on it."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftkit.data import batches, table
from ftkit.data.chat import IGNORE_INDEX
from ftkit.data.cleaning import clean_row, quality_problem, row_text
from ftkit.data.decontamination import overlaps
from ftkit.data.diagnosis import Diagnosis, Finding, Severity
from ftkit.data.duplicates import drop_near, exact_keys, first_of_each, near_duplicates
from ftkit.data.pieces import Encoder
from ftkit.data.prepared import TOKEN_COLUMNS, metadata, vocabulary_key
from ftkit.data.sources import SPLITS, Report, is_prepared, load_data, read
from ftkit.data.splits import split_numbers
from ftkit.models.families import stop_token_ids
from ftkit.models.loading import load_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SHOWN = 2
"""Rows of the data shown with their trained tokens marked."""
SHOWN_TOKENS = 400
FEW_TRAINED = 0.01
"""Share of trained tokens below which most of the work goes into prompts."""


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
    progress: bool = False,
) -> Diagnosis:
    """Look data over: masks, stop tokens, BOS, lengths, prefixes, duplicates, test-set overlap, encodings.

    Args:
        data: rows of any kind that `ftkit.data.load_data` reads, or a prepared folder. They stand in a memory-mapped
            table meanwhile; what is kept in memory is 250 bytes a row and the n-grams of the held-out splits.
        model: name of the model, as in `ftkit.load`, or its tokenizer.
        max_seq_length: longest row in tokens that will be trained; a prepared folder has its own.
        train_on: as in `ftkit.data.encode_rows`; a prepared folder has its own.
        near_duplicate_threshold: Jaccard similarity of character 5-grams.
        seed: of MinHash.
        progress: draw bars on stderr.

    Raises:
        DataError: the source cannot be read at all.
        ModelError: no such model.
    """
    from tqdm.std import tqdm

    tokenizer = load_tokenizer(model) if isinstance(model, str) else model
    findings, report = _Findings(), Report()
    with tempfile.TemporaryDirectory(prefix="ftkit-doctor-") as work:
        file = Path(work) / "rows.arrow"
        if is_prepared(data):
            made = metadata(data)
            max_seq_length = made["max_seq_length"]
            if made["vocabulary"] != vocabulary_key(tokenizer):
                what = f"prepared for {made['model_name']}: its ids mean something else here."
                findings.add("other_vocabulary", "error", what)
            splits = load_data(data)
            rows = table.write(file, tqdm(_kept_rows(splits), "reading", unit="row", disable=not progress))
            tokens = _Tokens(tokenizer, max_seq_length, findings)
            total = sum(map(len, splits.values()))
            with tqdm(total=total, desc="checking", unit="row", disable=not progress) as bar:
                for where, row in _token_rows(splits):
                    tokens.check(where, row)
                    bar.update()
            counts = {"rows": total, "prefix_violations": made["prefix_violations"]}
        else:
            rows = table.write(file, tqdm(read(data, report), "reading", unit="row", disable=not progress))
            tokens, violations, encoder = _Tokens(tokenizer, max_seq_length, findings), 0, Encoder(tokenizer)
            with tqdm(total=len(rows), desc="encoding", unit="row", disable=not progress) as bar:
                for part in table.stretches(rows):
                    violations += _check_rendered(part, encoder, train_on, tokens, findings)
                    bar.update(len(part))
            counts = {"rows": report.read, "usable_rows": len(rows), "prefix_violations": violations}
            _unreadable(report, findings)
        if counts["prefix_violations"]:
            findings.add(
                "prefix_violation",
                "error",
                "the prompt of generation is no exact prefix of what is trained, so the model is asked otherwise than "
                "it was taught; use a template without that fault.",
                rows=counts["prefix_violations"],
            )
        counts |= {"tokens": tokens.total, "trained_tokens": tokens.trained}
        counts["mask_coverage"] = tokens.trained / max(tokens.total, 1)
        if tokens.rows and counts["mask_coverage"] < FEW_TRAINED:
            findings.add(
                "few_trained_tokens",
                "error" if not tokens.trained else "warning",
                f"{counts['mask_coverage']:.2%} of the tokens are trained.",
                rows=tokens.rows,
            )
        if not tokens.rows:
            findings.add("no_rows", "error", "there is no row that could be trained on.", rows=report.read)
        _check_texts(rows, tokenizer, findings)
        _check_duplicates(rows, near_duplicate_threshold, seed, progress, findings)
        _check_overlap(rows, findings)
        del rows
    name = model if isinstance(model, str) else model.name_or_path or type(model).__name__
    lengths = sorted(tokens.lengths.items())
    return Diagnosis(_name(data), name, counts, findings.all(), lengths, tokens.shown)


def _kept_rows(splits: dict) -> Iterator[tuple[str, str, dict]]:
    """The conversations that stand beside the token rows of a prepared folder; packed rows have none."""
    for split, dataset in splits.items():
        if not {"messages", "text"} & set(dataset.column_names):
            continue
        at = 0
        for part in table.stretches(dataset, [n for n in table.CELLS if n in dataset.column_names]):
            for row in table.rows_of(part):
                at += 1
                yield split, f"{split}, row {at}", row


def _token_rows(splits: dict) -> Iterator[tuple[str, dict[str, list[int]]]]:
    for split, dataset in splits.items():
        at = 0
        for part in table.stretches(dataset, [n for n in TOKEN_COLUMNS if n in dataset.column_names]):
            for row in part.to_pylist():
                at += 1
                yield f"{split}, row {at}", row


def _check_rendered(part, encoder: Encoder, train_on: str, tokens: "_Tokens", findings: _Findings) -> int:
    """Encode some rows and check them; returns how many of their prompts are no exact prefix."""
    violations, rows, places = 0, table.rows_of(part), part["where"].to_pylist()
    options = {"train_on": train_on, "on_mismatch": "common_prefix"}
    for where, (row, encoded) in zip(places, batches.encoded_rows(rows, encoder, **options), strict=True):
        if isinstance(encoded, str):
            findings.add("cannot_be_rendered", "error", encoded, where)
            continue
        violations += encoded.mismatches
        for made in encoded.rows:
            tokens.check(where, made)
        if wanted := _tool_names(row):
            seen = encoder.tokenizer.decode([token for made in encoded.rows for token in made["input_ids"]])
            if lost := next((name for name in wanted if name not in seen), None):
                what = "the chat template leaves out a tool or its call, so the model would not see it; use a template "
                findings.add("tool_left_out", "error", f"{what}that writes tools.", f"{where}: {lost}")
    return violations


def _tool_names(row: dict[str, Any]) -> list[str]:
    """Names of the tools that a row offers or calls."""
    calls = [call for message in row.get("messages", ()) for call in message.get("tool_calls") or ()]
    tools = [one.get("function", one) for one in [*(row.get("tools") or ()), *calls] if isinstance(one, dict)]
    return [tool["name"] for tool in tools if isinstance(tool, dict) and isinstance(tool.get("name"), str)]


def _unreadable(report: Report, findings: _Findings) -> None:
    for reason, count in report.dropped.items():
        name, severity = reason.replace(" ", "_"), "warning" if report.kept else "error"
        findings.add(name, severity, "rows that cannot be used are left out.", report.examples[reason][0], count)
    if len(report.formats) > 1:
        formats = ", ".join(f"{count:,} {name}" for name, count in report.formats.most_common())
        findings.add("mixed_formats", "warning", f"rows of several formats: {formats}.", rows=report.kept)


class _Tokens:
    """Checks token rows one by one, and keeps sums, a histogram by powers of two, and the first rows to show."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", max_seq_length: int, findings: _Findings) -> None:
        self.tokenizer, self.max_seq_length, self.findings = tokenizer, max_seq_length, findings
        self.stops, self.pad, self.bos = set(stop_token_ids(tokenizer)), tokenizer.pad_token_id, tokenizer.bos_token_id
        self.uses_bos = self.bos is not None and tokenizer("x")["input_ids"][:1] == [self.bos]
        self.rows = self.total = self.trained = 0
        self.lengths: Counter[int] = Counter()
        self.shown: list[list[tuple[str, bool]]] = []

    def check(self, where: str, row: dict[str, list[int]]) -> None:
        ids, labels, findings = row["input_ids"], row["labels"], self.findings
        self.rows += 1
        self.total += len(ids)
        self.trained += len(labels) - labels.count(IGNORE_INDEX)
        self.lengths[1 << max(0, len(ids) - 1).bit_length()] += 1
        if len(self.shown) < SHOWN:
            self.shown.append(_pieces(row, self.tokenizer))
        if len(ids) > self.max_seq_length:
            what = f"longer than {self.max_seq_length} tokens: left out, or its answer is cut."
            findings.add("too_long", "warning", what, f"{where}: {len(ids)} tokens")
        if any(label not in (IGNORE_INDEX, token) for label, token in zip(labels, ids, strict=True)):
            what = "a label is another token than the one at its place."
            findings.add("labels_are_not_the_ids", "error", what, where)
        begins = [i for i, p in enumerate(row.get("position_ids") or [0]) if p == 0] or [0]
        for begin, end in zip(begins, [*begins[1:], len(ids)], strict=True):
            self._check_part(where, ids[begin:end], labels[begin:end])

    def _check_part(self, where: str, part: list[int], targets: list[int]) -> None:
        """One conversation, where several are packed into a row."""
        findings = self.findings
        trained = [i for i, label in enumerate(targets) if label != IGNORE_INDEX and i]
        if not trained:
            findings.add("no_target", "error", "a row without a single trained token.", where)
            return
        last = trained[-1]
        # Where the stop token pads, a text that ended with it already has two that are no padding.
        run = 3 if self.pad in self.stops else 2
        if part[-run:] == targets[-run:] == [self.pad] * run:
            findings.add("padding_trained", "error", "padding is trained; mask it by position.", where)
        if part[last] not in self.stops:
            what = "an answer is trained without the token that ends it: the model would not learn to stop."
            cut = len(part) >= self.max_seq_length
            findings.add("truncated_answer" if cut else "stop_not_trained", "warning" if cut else "error", what, where)
        if self.uses_bos and part.count(self.bos) != 1:
            what = "this tokenizer's rows begin with one BOS; more or none shifts what the model knows."
            findings.add("bos_count", "error", what, f"{where}: {part.count(self.bos)} BOS")


def _located(rows: "Dataset") -> Iterator[tuple[str, str, dict[str, Any]]]:
    for part in table.stretches(rows):
        yield from zip(part["split"].to_pylist(), part["where"].to_pylist(), table.rows_of(part), strict=True)


def _check_texts(rows: "Dataset", tokenizer, findings: _Findings) -> None:
    control = [token for token in tokenizer.all_special_tokens if len(token) > 3]
    for _, where, row in _located(rows):
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


def _check_duplicates(rows: "Dataset", threshold: float, seed: int, progress: bool, findings: _Findings) -> None:
    count = len(rows)
    if not count:
        return
    rows_at = table.rows_at(rows)

    def texts_at(indices) -> list[str]:
        return [row_text(row) for row in rows_at(indices)]

    keys = [exact_keys(map(batches.whole, table.rows_of(part))) for part in table.stretches(rows, table.CELLS)]
    repeats = np.flatnonzero(first_of_each(np.concatenate(keys)) != np.arange(count))
    if len(repeats):
        what = "rows that stand more than once; `ftkit prepare` keeps the first."
        findings.add("exact_duplicates", "warning", what, texts_at([int(repeats[0])])[0], len(repeats))
    pairs = near_duplicates(texts_at, count, threshold=threshold, seed=seed, progress=progress)
    near = np.setdiff1d(np.flatnonzero(~drop_near(pairs, count)), repeats)
    if len(near):
        what = f"rows that repeat another to {threshold:.0%} or more; `ftkit prepare` keeps the first."
        findings.add("near_duplicates", "warning", what, texts_at([int(near[0])])[0], len(near))


def _check_overlap(rows: "Dataset", findings: _Findings) -> None:
    side = split_numbers(rows)
    found = overlaps(rows, side)
    for number in reversed(range(1, len(SPLITS))):
        hits = found[(found[:, 1] == number) & (side[found[:, 0]] == 0), 0]
        if len(hits):
            what = f"training rows hold a prompt or an answer of the {SPLITS[number]} split: its score would be too "
            example = row_text(table.rows_at(rows)([int(hits[0])])[0])
            findings.add(f"{SPLITS[number]}_overlap", "error", f"{what}good.", example, len(hits))


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


def _name(data: Any) -> str:
    return str(data) if isinstance(data, str | Path) else f"a {type(data).__name__}"
