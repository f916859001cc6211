"""What the pipeline does to one batch of its table: functions of their arguments alone, which run in any process."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ftkit.data import table
from ftkit.data.chat import Encoded, encode_rows
from ftkit.data.cleaning import LONG_ENOUGH, clean_row, quality_problem, row_text
from ftkit.data.config import DataConfig
from ftkit.data.duplicates import CONTAMINATION_NGRAM, exact_keys, signatures
from ftkit.data.packing import fit
from ftkit.data.pieces import Encoder
from ftkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa

_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False)


def look_over(batch: "pa.Table", config: DataConfig, text_column: str) -> "pa.Table":
    """Every content cleaned, and the system prompt of the settings before conversations that bring none; beside it what
    `judge` and `fingerprint` would say of the cleaned rows, so that each is unpacked once."""
    import pyarrow as pa

    rows = [cleaned(row, config.system_prompt) for row in table.rows_of(batch, text_column)]
    problems = pa.array([problem(row, config) for row in rows], pa.string())
    printed = fingerprints(rows, config.near_duplicate_threshold is not None, config.seed)
    return replaced(batch, table.arrays(rows) | {"problem": problems} | printed)


def cleaned(row: dict, system_prompt: str | None) -> dict:
    """One row so cleaned."""
    row = clean_row(row)
    if system_prompt is None or "text" in row or row["messages"][0]["role"] == "system":
        return row
    return row | {"messages": [{"role": "system", "content": system_prompt}, *row["messages"]]}


def replaced(batch: "pa.Table", columns: "dict[str, pa.Array]") -> "pa.Table":
    """`batch` with columns put in, or in the place of those of the same name."""
    for name, column in columns.items():
        if name in batch.column_names:
            batch = batch.set_column(batch.column_names.index(name), name, column)
        else:
            batch = batch.append_column(name, column)
    return batch


def judge(batch: "pa.Table", config: DataConfig, text_column: str) -> "pa.Table":
    """`problem`: why a row should not be trained on, or None."""
    import pyarrow as pa

    return pa.table({"problem": pa.array([problem(r, config) for r in table.rows_of(batch, text_column)], pa.string())})


def fingerprint(batch: "pa.Table", near: bool, seed: int, text_column: str) -> "pa.Table":
    """What `fingerprints` tells of the rows of a table."""
    import pyarrow as pa

    return pa.table(fingerprints(table.rows_of(batch, text_column), near, seed))


def fingerprints(rows: list[dict], near: bool, seed: int) -> "dict[str, pa.Array]":
    """`whole` and `question`, keys that are equal in rows where those are, and `signature` for near-duplicates."""
    import pyarrow as pa

    columns = {"whole": pa.array(exact_keys(map(whole, rows))), "question": pa.array(exact_keys(map(question, rows)))}
    if near:
        signed = signatures(list(map(row_text, rows)), seed)
        columns["signature"] = pa.array([row.tobytes() for row in signed], pa.binary())
    return columns


def problem(row: dict, config: DataConfig) -> str | None:
    """Why one row should not be trained on, or None."""
    last = row["messages"][-1] if "messages" in row else {"content": row["text"]}
    if not last["content"] and not last.get("tool_calls"):
        return "empty answer"  # nothing but characters that cleaning removes
    if not config.quality_filter:
        return None
    contents = [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]
    # The row for its length, each long message for itself: a good question does not make up for a bad answer.
    found = quality_problem(row_text(row), config.min_length, config.max_length)
    return found or next(filter(None, (quality_problem(c) for c in contents if len(c) >= LONG_ENOUGH)), None)


def encode(batch: "pa.Table", encoder: Encoder, config: DataConfig, text_column: str, carried: list[str]) -> "pa.Table":
    """Token rows beside their conversation, those in `carried` copied; a row that gives none has a `problem`.

    `mismatches` and `turns_left_out` stand with the first token row of each conversation.
    """
    import pyarrow as pa

    at, ids, rows = [], [], []  # rows: those that end before their conversation does
    counts: dict[str, list] = {"problem": [], "mismatches": [], "turns_left_out": []}
    options = {"train_on": config.train_on, "on_mismatch": "common_prefix"}
    for i, (row, encoded) in enumerate(encoded_rows(table.rows_of(batch, text_column), encoder, **options)):
        kept, problem = [], encoded
        if isinstance(encoded, Encoded):
            fitting = [fit(made, config.max_seq_length, config.too_long) for made in encoded.rows]
            kept = [(made, end) for made, end in zip(fitting, encoded.ends, strict=True) if made is not None]
            problem = None if kept else _why_nothing_fits(encoded, config)
        for number, (made, end) in enumerate(kept or [({"input_ids": [], "labels": []}, 0)]):
            counts_here = bool(kept) and number == 0
            at.append(i)
            ids.append(made)
            shorter = end and end < len(row["messages"])
            rows.append(row | {"messages": row["messages"][:end]} if shorter else None)
            counts["problem"].append(problem)
            counts["mismatches"].append(encoded.mismatches if counts_here else 0)
            counts["turns_left_out"].append(len(encoded.rows) - len(kept) if counts_here else 0)
    columns = {name: table.lists(made[name] for made in ids) for name in ("input_ids", "labels")}
    taken = batch.take(pa.array(at, pa.int64()))
    written = text_column == "text" and table.has_cells(batch)
    if written and not any(rows):
        columns |= {name: taken[name] for name in table.CELLS}
    else:
        columns |= table.arrays([cut or row for cut, row in zip(rows, table.rows_of(taken, text_column), strict=True)])
    columns["problem"] = pa.array(counts["problem"], pa.string())
    columns |= {name: pa.array(counts[name], pa.int32()) for name in ("mismatches", "turns_left_out")}
    return pa.table(columns | {name: taken[name] for name in carried})


def _why_nothing_fits(encoded: Encoded, config: DataConfig) -> str:
    if any(len(ids["input_ids"]) <= config.max_seq_length for ids in encoded.rows):
        return "nothing to train"
    return "longer than max_seq_length" if config.too_long == "drop" else "the prompt alone fills max_seq_length"


def encoded_rows(rows: list[dict], encoder: Encoder, **options) -> Iterator[tuple[dict, Encoded | str]]:
    """Each row with what `encode_rows` makes of it, or with the reason why it refuses the row."""
    try:
        encoded = encode_rows(encoder.tokenizer, rows, encoder=encoder, **options)
    except DataError:  # one of them: find it
        encoded = [_alone(row, encoder, options) for row in rows]
    return zip(rows, encoded, strict=True)


def _alone(row: dict, encoder: Encoder, options: dict) -> Encoded | str:
    try:
        return encode_rows(encoder.tokenizer, [row], encoder=encoder, **options)[0]
    except DataError as error:
        return str(error)


def whole(row: dict) -> str:
    """All that a row holds, as one string: equal for exact duplicates alone."""
    return _JSON.encode(row)


def question(row: dict) -> str:
    """What the model is asked: all before the last answer but the system prompt, capitals and spaces made equal."""
    if "text" in row:
        return row["text"]
    asked = [" ".join(m["content"].casefold().split()) for m in row["messages"][:-1] if m["role"] != "system"]
    return _JSON.encode(asked)


def units(row: dict) -> list[str]:
    """What is compared with a test set: the questions together, and each answer that is long enough to tell."""
    if "text" in row:
        return [row["text"]]
    asked = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
    answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
    return [asked, *(answer for answer in answers if len(answer) > 2 * CONTAMINATION_NGRAM)]
