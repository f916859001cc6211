"""Rows that hold a text of a test set, found in a table without holding it in memory."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from ftkit.data import batches, table
from ftkit.data.cleaning import clean_row
from ftkit.data.duplicates import HeldOut
from ftkit.data.sources import SPLITS, Report, read
from ftkit.data.splits import split_numbers

if TYPE_CHECKING:
    from datasets import Dataset

Test = tuple[HeldOut, bool]
"""The texts of a test set, and whether they are the table's own, which its test rows may of course hold."""


def tests_of(dataset: "Dataset", foreign: str | None = None, text_column: str = "text") -> list[Test]:
    """The test sets that a table must not be trained on: its own test split, and that of `foreign`, a source."""
    found: list[Test] = []
    if foreign is not None:
        found.append((HeldOut(_texts_of(foreign)), False))
    test = split_numbers(dataset) == SPLITS.index("test")
    if test.any() and not test.all():
        rows = table.rows_at(dataset, text_column)(np.flatnonzero(test))
        found.append((HeldOut([unit for row in rows for unit in batches.units(row)]), True))
    return found


def overlapping(dataset: "Dataset", tests: list[Test], text_column: str = "text") -> Iterator[tuple[int, str]]:
    """Rows that hold a text of `tests`, each once, with what of them holds it."""
    rows_at, seen = table.rows_at(dataset, text_column), set()
    test = split_numbers(dataset) == SPLITS.index("test")
    for held_out, own in tests:
        for part in table.parts(len(dataset)):
            units = [(i, unit) for i, row in zip(part, rows_at(part), strict=True) for unit in batches.units(row)]
            for (i, unit), hit in zip(units, held_out.held_by([unit for _, unit in units]), strict=True):
                if hit and i not in seen and not (own and test[i]):
                    seen.add(i)
                    yield i, unit


def _texts_of(source: str) -> list[str]:
    """What a test set asks and answers: of a folder or a task its test split, where it has one, of a file all."""
    rows: dict[str, list[dict]] = {}
    for split, _, row in read(source, Report()):
        rows.setdefault(split, []).append(clean_row(row))
    return [unit for row in rows.get("test", rows.get("train", [])) for unit in batches.units(row)]
