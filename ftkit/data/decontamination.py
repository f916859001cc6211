"""Rows that hold a text of a test set, found in a table without holding it in memory."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ftkit.data import batches, table
from ftkit.data.cleaning import clean_row
from ftkit.data.duplicates import HeldOut, exact_keys, first_of_each
from ftkit.data.sources import SPLITS, Report, read
from ftkit.data.splits import split_numbers

if TYPE_CHECKING:
    from datasets import Dataset

COMMON = 10
"""A held-out text that more training rows than this hold, or more than a quarter of them, is a form that rows share,
such as an instruction: to leave out all who use it could leave nothing to train on."""

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


def held_pairs(splits: "Mapping[str, Dataset]") -> tuple[np.ndarray, np.ndarray]:
    """What of the other splits stands in training rows.

    Args:
        splits: tables by the names of `SPLITS`, the training rows among them.

    Returns:
        Training rows with the held-out text that each holds, (pairs, 2) int64, and the split of each text, (texts,).
    """
    texts, split_of = [], []
    for split in SPLITS[:0:-1]:
        for part in table.parts(len(splits[split])):
            units = [unit for row in table.rows_at(splits[split])(part) for unit in batches.units(row)]
            texts += units
            split_of += [split] * len(units)
    held_out, train = HeldOut(texts), splits["train"]
    found = [np.empty((0, 2), dtype=np.int64)]
    for part in table.parts(len(train)) if texts else ():
        units = [
            (i, unit) for i, row in zip(part, table.rows_at(train)(part), strict=True) for unit in batches.units(row)
        ]
        pairs = held_out.pairs([unit for _, unit in units])
        rows = np.array([i for i, _ in units], dtype=np.int64)[pairs[:, 0]]
        found.append(np.unique(np.stack([rows, pairs[:, 1]], axis=1), axis=0))
    return np.concatenate(found), np.array(split_of, dtype=object)


def leaks(pairs: np.ndarray, rows: int) -> np.ndarray:
    """Which of the `pairs` of `held_pairs` spoil a score, (pairs,) bool: those whose text is not `COMMON` among so many
    training `rows`."""
    common = min(COMMON, max(2, rows / 4))
    return np.bincount(pairs[:, 1])[pairs[:, 1]] <= common


def leaking_rows(splits: "Mapping[str, Dataset]") -> np.ndarray:
    """Training rows to leave out so that none leaks, with all other rows of their conversations, (training rows,) bool.

    With them go holders of texts that were common, so it is asked again until nothing leaks.
    """
    train = splits["train"]
    pairs, _ = held_pairs(splits)
    out = np.zeros(len(train), dtype=bool)
    if not len(pairs):
        return out
    conversation = conversations(train)
    while (leaking := leaks(pairs, int((~out).sum()))).any():
        out |= np.isin(conversation, conversation[pairs[leaking, 0]])
        pairs = pairs[~out[pairs[:, 0]]]
    return out


def conversations(dataset: "Dataset") -> np.ndarray:
    """The first row of the conversation that each row belongs to, (rows,) int64."""
    if "where" not in dataset.column_names:
        return np.arange(len(dataset))
    keys = [exact_keys(part["where"].to_pylist()) for part in table.stretches(dataset, ["where"])]
    return first_of_each(np.concatenate(keys))


def _texts_of(source: str) -> list[str]:
    """What a test set asks and answers: of a folder or a task its test split, where it has one, of a file all."""
    rows: dict[str, list[dict]] = {}
    for split, _, row in read(source, Report()):
        rows.setdefault(split, []).append(clean_row(row))
    return [unit for row in rows.get("test", rows.get("train", [])) for unit in batches.units(row)]
