"""Rows as an Arrow table on disk, memory-mapped, so that memory does not grow with them."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ftkit.errors import DataError

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

CELLS = ("messages", "tools", "text")
_BATCH = 1000
_SCAN = 5000
_SURROGATES = re.compile("[\ud800-\udfff]")


def write(path: Path, rows: Iterable[tuple[str, str, dict[str, Any]]]) -> "Dataset":
    """Write (split, where, row) as they come and return them memory-mapped.

    Columns: `split`, `where`, `messages` (role, content and `extra`, the message's further keys as JSON, or None),
    `tools` (JSON or None) and `text` (None but in rows of plain text, whose `messages` is None).
    """
    from datasets import Dataset

    save(path, row_tables(rows))
    return Dataset.from_file(str(path))


def save(path: Path, tables: "Iterable[pa.Table]") -> None:
    """Write tables of one schema, at least one, as they come into one file that `Dataset.from_file` maps."""
    import pyarrow as pa

    tables = iter(tables)
    first = next(tables)
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, first.schema) as out:
        out.write_table(first)
        for table in tables:
            out.write_table(table)


def to_bytes(table: "pa.Table") -> bytes:
    """The table's own rows alone: pickled, a slice takes all of what it was cut from along."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    return sink.getvalue().to_pybytes()


def from_bytes(raw: bytes) -> "pa.Table":
    """The table of `to_bytes`."""
    import pyarrow as pa

    return pa.ipc.open_stream(raw).read_all()


def row_tables(rows: Iterable[tuple[str, str, dict[str, Any]]]) -> "Iterator[pa.Table]":
    """The columns of `write` in stretches, the last of them perhaps without rows."""
    rows, more = iter(rows), True
    while more:
        batch = list(islice(rows, _BATCH))
        more = len(batch) == _BATCH
        yield of_rows(batch)


def of_rows(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> "pa.Table":
    """The columns of `write`."""
    import pyarrow as pa

    places = {name: pa.array([one[i] for one in rows], pa.string()) for i, name in enumerate(("split", "where"))}
    return pa.table(places | arrays([row for *_, row in rows]))


def arrays(rows: list[dict[str, Any]]) -> "dict[str, pa.Array]":
    """The columns `messages`, `tools` and `text` of some rows; `rows_of` is the way back."""
    import pyarrow as pa

    messages = [message for row in rows if "text" not in row for message in row["messages"]]
    further = [{k: v for k, v in message.items() if k not in ("role", "content")} for message in messages]
    extras = [json.dumps(extra, default=str) if extra else None for extra in further]
    cells = {
        "role": pa.array([message["role"] for message in messages], pa.string()),
        "content": pa.array([_writable(message["content"]) for message in messages], pa.string()),
        "extra": pa.array(extras, pa.string()),
    }
    lengths = [0 if "text" in row else len(row["messages"]) for row in rows]
    return {
        "messages": pa.ListArray.from_arrays(
            _offsets(lengths),
            pa.StructArray.from_arrays(list(cells.values()), list(cells)),
            mask=pa.array(["text" in row for row in rows], pa.bool_()),
        ),
        "tools": pa.array(
            [json.dumps(row["tools"], default=str) if row.get("tools") else None for row in rows], pa.string()
        ),
        "text": pa.array([_writable(row["text"]) if "text" in row else None for row in rows], pa.string()),
    }


def has_cells(table: "pa.Table") -> bool:
    """Whether the table has the columns of `arrays`, of just these types."""
    return all(name in table.column_names and table[name].type == made.type for name, made in arrays([]).items())


def rows_of(table: "pa.Table", text_column: str = "text") -> list[dict[str, Any]]:
    """The rows in the messages format, or of plain text, whose column may have another name."""
    texts = table[text_column].to_pylist() if text_column in table.column_names else [None] * len(table)
    tools = table["tools"].to_pylist() if "tools" in table.column_names else [None] * len(table)
    if "messages" not in table.column_names:
        return [{"text": text} for text in texts]
    column = table["messages"].combine_chunks()
    flat = column.flatten()
    names = [field.name for field in flat.type]
    cells = {name: array.to_pylist() for name, array in zip(names, flat.flatten(), strict=True)}
    extras = cells.get("extra", [None] * len(flat))
    messages = [
        {"role": role, "content": content} | (json.loads(extra) if extra else {})
        for role, content, extra in zip(cells["role"], cells["content"], extras, strict=True)
    ]
    rows, at = [], 0
    for length, text, tool in zip(column.value_lengths().to_pylist(), texts, tools, strict=True):
        if length is None:
            rows.append({"text": text})
            continue
        rows.append({"messages": messages[at : at + length]} | ({"tools": json.loads(tool)} if tool else {}))
        at += length
    return rows


def rows_at(dataset: "Dataset", text_column: str = "text") -> Callable[[Any], list[dict[str, Any]]]:
    """Gives the rows at some indices.

    Raises:
        DataError: the table holds neither conversations nor such a column.
    """
    columns = [name for name in ("messages", "tools", text_column) if name in dataset.column_names]
    if not {"messages", text_column} & set(columns):
        has = ", ".join(dataset.column_names)
        raise DataError(f"the table has no column {text_column!r} and no messages; it has {has}.")
    chosen = dataset.with_format("arrow", columns=columns)
    return lambda indices: rows_of(chosen[indices], text_column)


def lists(rows: Iterable[list[int]]) -> "pa.ListArray":
    """Rows of numbers as one int32 list array; by way of NumPy, ten times as fast as from the lists themselves."""
    import pyarrow as pa

    rows = list(rows)
    flat = np.fromiter(chain.from_iterable(rows), dtype=np.int32)
    return pa.ListArray.from_arrays(_offsets(list(map(len, rows))), pa.array(flat, pa.int32()))


def _offsets(lengths: list[int]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), pa.int32())


def _writable(text: str) -> str:
    """`text` with halves of surrogate pairs, which no file can hold, as U+FFFD."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def restore(cells: dict[str, Any]) -> dict[str, Any]:
    """The row in the messages format, or of plain text, of one row of a `Dataset` with the columns of `arrays`."""
    if cells.get("messages") is None:
        return {"text": cells["text"]}
    messages = [
        {"role": m["role"], "content": m["content"], **(json.loads(m["extra"]) if m.get("extra") else {})}
        for m in cells["messages"]
    ]
    return {"messages": messages} | ({"tools": json.loads(cells["tools"])} if cells.get("tools") else {})


def parts(count: int) -> list[range]:
    """The indices of `count` rows, in stretches that are looked at together."""
    return [range(start, min(start + _SCAN, count)) for start in range(0, count, _SCAN)]


def stretches(dataset: "Dataset", columns: Iterable[str] | None = None) -> "Iterator[pa.Table]":
    """The table in stretches, one of them in memory at a time."""
    chosen = dataset.with_format("arrow", columns=list(columns) if columns is not None else None)
    for part in parts(len(dataset)):
        yield chosen[part.start : part.stop]


def numbers(dataset: "Dataset", name: str) -> np.ndarray:
    """One column of numbers, (rows,), or of equally long strings of bytes, (rows, bytes) uint8."""
    made = []
    for table in stretches(dataset, [name]):
        column = table[name].combine_chunks()
        if column.type == "binary":
            made.append(np.frombuffer(b"".join(column.to_pylist()), dtype=np.uint8).reshape(len(column), -1))
        else:
            made.append(column.to_numpy(zero_copy_only=False))
    return np.concatenate(made) if made else np.empty(0, dtype=np.int64)


def lengths(dataset: "Dataset", name: str) -> np.ndarray:
    """How long the lists of one column are, (rows,) int64."""
    made = [t[name].combine_chunks().value_lengths().to_numpy() for t in stretches(dataset, [name])]
    return np.concatenate(made).astype(np.int64) if made else np.empty(0, dtype=np.int64)
