"""Rows of any shape as conversations to be answered."""

from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from ftkit.data.formats import recognise, to_messages
from ftkit.data.table import restore
from ftkit.errors import DataError


def conversations(
    dataset: Iterable[Mapping[str, Any]],
    instruction_col: str = "instruction",
    response_col: str = "response",
    limit: int | None = None,
    plain: bool = False,
) -> list[dict[str, Any]]:
    """Rows in the messages format, the last message being the reference.

    Args:
        dataset: rows of a prepared data set, in any format of `ftkit.data.formats`, or with the two named columns;
            `input` and `system`, where a row has them, are then part of the question.
        limit: the first so many rows only.
        plain: leave rows of plain text out, which ask nothing, instead of refusing them; then none may be left.

    Raises:
        DataError: there are no rows, or one holds no question and answer.
    """
    rows = []
    for number, row in enumerate(islice(dataset, limit), start=1):
        columns = None
        if "input_ids" in row:
            row = restore(row)
        elif {instruction_col, response_col} <= row.keys():
            columns = {"instruction": instruction_col, "response": response_col}
            columns |= {name: name for name in ("input", "system") if name in row}
        elif recognise(row) is None:
            has = ", ".join(map(repr, row))
            raise DataError(
                f"row {number} has no columns {instruction_col!r} and {response_col!r}; it has {has}. Name its columns "
                "with instruction_col and response_col."
            )
        row = to_messages(row, f"row {number}", columns)
        if "text" in row and plain:
            continue
        if "text" in row:
            raise DataError(f"row {number} is plain text, which has no answer to compare with; give it as test_texts.")
        rows.append(row)
    if not rows and not plain:
        raise DataError("there are no rows to evaluate on; give at least one.")
    return rows


def asked(row: Mapping[str, Any]) -> str:
    """What stands before the answer, for people to read: its one turn, or all turns with their roles."""
    turns = row["messages"][:-1]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)
