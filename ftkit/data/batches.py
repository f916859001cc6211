"""What the pipeline does to one batch of its table: functions of their arguments alone, which run in any process."""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ftkit.data import table
from ftkit.data.chat import Encoded, encode_rows
from ftkit.data.cleaning import LONG_ENOUGH, clean_row, quality_problem, row_text
from ftkit.data.config import DataConfig
from ftkit.data.duplicates import CONTAMINATION_NGRAM
from ftkit.data.packing import fit
from ftkit.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, list[Any]]
CELLS = ("messages", "tools", "text")


def clean(batch: Batch, system_prompt: str | None, text_column: str) -> Batch:
    """Every content cleaned, and `system_prompt`, where given, before conversations that bring none."""
    rows = [clean_row(row) for row in table.rows_of(batch, text_column)]
    if system_prompt is not None:
        first = {"role": "system", "content": system_prompt}
        rows = [
            row
            if "text" in row or row["messages"][0]["role"] == "system"
            else row | {"messages": [first, *row["messages"]]}
            for row in rows
        ]
    cells = [table.store(row) for row in rows]
    return {name: [cell[name] for cell in cells] for name in CELLS}


def judge(batch: Batch, config: DataConfig, text_column: str) -> Batch:
    """`problem`: why a row should not be trained on, or None."""
    return {"problem": [_problem(row, config) for row in table.rows_of(batch, text_column)]}


def _problem(row: dict, config: DataConfig) -> str | None:
    last = row["messages"][-1] if "messages" in row else {"content": row["text"]}
    if not last["content"] and not last.get("tool_calls"):
        return "empty answer"  # nothing but characters that cleaning removes
    if not config.quality_filter:
        return None
    contents = [row["text"]] if "text" in row else [message["content"] for message in row["messages"]]
    # The row for its length, each long message for itself: a good question does not make up for a bad answer.
    problem = quality_problem(row_text(row), config.min_length, config.max_length)
    return problem or next(filter(None, (quality_problem(c) for c in contents if len(c) >= LONG_ENOUGH)), None)


def encode(
    batch: Batch, tokenizer: "PreTrainedTokenizerBase", config: DataConfig, text_column: str, carried: list[str]
) -> Batch:
    """Token rows beside their conversation, those in `carried` copied; a row that gives none has a `problem`.

    `mismatches` and `turns_left_out` stand with the first token row of each conversation.
    """
    names = ("input_ids", "labels", *CELLS, "problem", "mismatches", "turns_left_out", *carried)
    made: Batch = {name: [] for name in names}
    for i, (row, encoded) in enumerate(_encoded(table.rows_of(batch, text_column), tokenizer, config)):
        kept, problem = [], encoded
        if isinstance(encoded, Encoded):
            fitting = [fit(ids, config.max_seq_length, config.too_long) for ids in encoded.rows]
            kept = [(ids, end) for ids, end in zip(fitting, encoded.ends, strict=True) if ids is not None]
            problem = None if kept else _why_nothing_fits(encoded, config)
        first = not kept or kept[0]
        for ids, end in kept or [({"input_ids": [], "labels": []}, 0)]:
            shown = row | {"messages": row["messages"][:end]} if end else row
            cells = ids | table.store(shown) | {name: batch[name][i] for name in carried}
            cells["problem"] = problem
            counts = bool(kept) and ids is first[0]
            cells["mismatches"] = encoded.mismatches if counts else 0
            cells["turns_left_out"] = len(encoded.rows) - len(kept) if counts else 0
            for name, value in cells.items():
                made[name].append(value)
    return made


def _why_nothing_fits(encoded: Encoded, config: DataConfig) -> str:
    if any(len(ids["input_ids"]) <= config.max_seq_length for ids in encoded.rows):
        return "nothing to train"
    return "longer than max_seq_length" if config.too_long == "drop" else "the prompt alone fills max_seq_length"


def _encoded(
    rows: list[dict], tokenizer: "PreTrainedTokenizerBase", config: DataConfig
) -> Iterator[tuple[dict, Encoded | str]]:
    """Each row with its token rows, or with the reason why it has none."""
    options = {"train_on": config.train_on, "on_mismatch": "common_prefix"}
    try:
        encoded = encode_rows(tokenizer, rows, **options)
    except DataError:  # one of them: find it
        encoded = [_alone(row, tokenizer, options) for row in rows]
    return zip(rows, encoded, strict=True)


def _alone(row: dict, tokenizer: "PreTrainedTokenizerBase", options: dict) -> Encoded | str:
    try:
        return encode_rows(tokenizer, [row], **options)[0]
    except DataError as error:
        return str(error)


def whole(row: dict) -> str:
    """All that a row holds, as one string: equal for exact duplicates alone."""
    return json.dumps(row, sort_keys=True, ensure_ascii=False)


def question(row: dict) -> str:
    """What the model is asked: all before the last answer but the system prompt, capitals and spaces made equal."""
    if "text" in row:
        return row["text"]
    asked = [" ".join(m["content"].casefold().split()) for m in row["messages"][:-1] if m["role"] != "system"]
    return json.dumps(asked, ensure_ascii=False)


def units(row: dict) -> list[str]:
    """What is compared with a test set: the questions together, and each answer that is long enough to tell."""
    if "text" in row:
        return [row["text"]]
    asked = "\n".join(m["content"] for m in row["messages"] if m["role"] == "user")
    answers = [m["content"] for m in row["messages"] if m["role"] == "assistant"]
    return [asked, *(answer for answer in answers if len(answer) > 2 * CONTAMINATION_NGRAM)]
