"""Rows as an Arrow table on disk, memory-mapped, so that memory does not grow with them."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features

_BATCH = 1000
_SCAN = 5000
_SURROGATES = re.compile("[\ud800-\udfff]")


def write(path: Path, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> "Dataset":
    """Write (split, where, row) as they come and return them memory-mapped.

    Columns: `split`, `where`, `messages` (role, content and `extra`, the message's further keys as JSON, or None),
    `tools` (JSON or None) and `text` (None but in rows of plain text, whose `messages` is None).
    """
    import pyarrow as pa
    from datasets import Dataset

    message = pa.struct([("role", pa.string()), ("content", pa.string()), ("extra", pa.string())])
    schema = pa.schema(
        [
            ("split", pa.string()),
            ("where", pa.string()),
            ("messages", pa.list_(message)),
            ("tools", pa.string()),
            ("text", pa.string()),
        ]
    )
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as out:
        batch: list[dict[str, Any]] = []
        for split, where, row in rows:
            batch.append({"split": split, "where": where, **store(row)})
            if len(batch) == _BATCH:
                out.write_batch(pa.RecordBatch.from_pylist(batch, schema))
                batch = []
        out.write_batch(pa.RecordBatch.from_pylist(batch, schema))
    return Dataset.from_file(str(path))


def store(row: dict[str, Any]) -> dict[str, Any]:
    """A row as its cells `messages`, `tools` and `text`; `restore` is the way back."""
    if "text" in row:
        return {"messages": None, "tools": None, "text": _writable(row["text"])}
    messages = []
    for message in row["messages"]:
        extra = {key: value for key, value in message.items() if key not in ("role", "content")}
        messages.append(
            {
                "role": message["role"],
                "content": _writable(message["content"]),
                "extra": json.dumps(extra, default=str) if extra else None,
            }
        )
    tools = json.dumps(row["tools"], default=str) if row.get("tools") else None
    return {"messages": messages, "tools": tools, "text": None}


def _writable(text: str) -> str:
    """`text` with halves of surrogate pairs, which no file can hold, as U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def restore(cells: dict[str, Any]) -> dict[str, Any]:
    """The row in the messages format, or of plain text, that `store` made the cells of."""
    if cells.get("messages") is None:
        return {"text": cells["text"]}
    messages = [
        {"role": m["role"], "content": m["content"], **(json.loads(m["extra"]) if m.get("extra") else {})}
        for m in cells["messages"]
    ]
    return {"messages": messages} | ({"tools": json.loads(cells["tools"])} if cells.get("tools") else {})


def rows_of(batch: dict[str, list[Any]], text_column: str = "text") -> list[dict[str, Any]]:
    """The rows of a batch of a `Dataset` (`dataset[a:b]`), whose plain text may have another name."""
    count = len(next(iter(batch.values()), []))
    cells = [{key: batch[key][i] for key in ("messages", "tools") if key in batch} for i in range(count)]
    if text_column in batch:
        cells = [cell | {"text": batch[text_column][i]} for i, cell in enumerate(cells)]
    return [restore(cell) for cell in cells]


def encoded_features(dataset: "Dataset", carried: list[str]) -> "Features":
    """Types of the columns of token rows: told beforehand, they need not be found out from every value."""
    from datasets import Features, List, Value

    ids, text, number = List(Value("int32")), Value("string"), Value("int32")
    message = {"role": text, "content": text, "extra": text}
    return Features(
        {"input_ids": ids, "labels": ids, "messages": List(message), "tools": text, "text": text, "problem": text}
        | {"mismatches": number, "turns_left_out": number}
        | {name: dataset.features[name] for name in carried}
    )


def parts(count: int) -> list[range]:
    """The indices of `count` rows, in stretches that are looked at together."""
    return [range(start, min(start + _SCAN, count)) for start in range(0, count, _SCAN)]


def column(dataset: "Dataset", name: str) -> Iterator[list[int]]:
    """The cells of one column, read in stretches."""
    for part in parts(len(dataset)):
        yield from dataset[part.start : part.stop][name]
