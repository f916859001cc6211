"""Rows that hold a text of held-out rows, found in a table without holding it in memory, and splits without any.

One measure serves all: `ftkit.data.duplicates.contaminated`, over the `ftkit.data.batches.units` of a table's rows.
What `ftkit prepare` keeps apart by it is what `ftkit doctor` looks for.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftkit.data import batches, table
from ftkit.data.cleaning import clean_row
from ftkit.data.duplicates import BOILERPLATE, HeldOut, exact_keys, first_of_each, groups
from ftkit.data.formats import BrokenRow, to_messages
from ftkit.data.parallel import in_order
from ftkit.data.sources import SPLITS, locate
from ftkit.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

FEW = BOILERPLATE
"""Groups that hold one text, up to which they are joined; above, the text is common and its own rows are trained on."""
_ROUNDS = 3

Units = tuple[np.ndarray, list[str], list[bool]]
"""Of each unit its row, its text, and whether it is what is asked."""


def holding(dataset: "Dataset", source: str, text_column: str = "text") -> Iterator[tuple[int, str]]:
    """Rows that hold a text of the test set `source`, each once, ascending, with what of them holds it.

    For the rows that count and the errors see `test_set`.
    """
    test = test_set(source)
    _, texts, asked = _units(range(len(test)), test)
    held_out = HeldOut(texts, asked)
    held_out.count(texts, asked)
    touched, rows_at = _count(held_out, dataset, text_column), table.rows_at(dataset, text_column)
    for part in _parts(touched):
        rows_of, texts, _ = _units(part, rows_at(part))
        hits = np.unique(held_out.pairs(texts)[:, 0])
        _, first = np.unique(rows_of[hits], return_index=True)
        yield from ((int(rows_of[i]), texts[i]) for i in hits[first])


def test_set(source: str) -> list[dict]:
    """The rows of the test set `source`, cleaned; they need no answers.

    Of a folder or a task its test split counts, where it has one, else that of training, which is all of a file.

    Raises:
        DataError: there are none, or one cannot be used: what it holds could not be kept out of the training rows.
    """
    splits = locate(source)
    name, rows = splits.get("test") or splits.get("train") or (str(source), iter(()))
    test = []
    for where, row in rows:
        try:
            if isinstance(row, BrokenRow):
                raise row
            test.append(clean_row(to_messages(row, where, answered=False)))
        except BrokenRow as error:
            raise DataError(f"the test set to decontaminate from must be whole: {error}") from None
    if not test:
        raise DataError(f"{name} holds no test rows to decontaminate from; give a file or a folder with test.jsonl.")
    return test


def overlaps(dataset: "Dataset", side: np.ndarray, text_column: str = "text") -> np.ndarray:
    """Which rows hold a text of which held-out split, by its number in `SPLITS`: (pairs, 2) int64, each once, in order.

    Args:
        side: the split of each row as its number, (rows,).
    """
    pairs, (owner, number) = _held(dataset, np.flatnonzero(side != 0), text_column)
    found = [pairs[np.isin(pairs[:, 1], number[side[owner] == split]), 0] for split in (1, 2)]
    stacked = [np.stack([rows, np.full(len(rows), split)], axis=1) for split, rows in zip((1, 2), found, strict=True)]
    return np.unique(np.concatenate(stacked), axis=0)


def leaking(dataset: "Dataset", side: np.ndarray, text_column: str = "text") -> np.ndarray:
    """Which rows to leave out so that no training row holds a text of the validation or test split, and no validation
    row one of the test split; (rows,) bool. With a row goes all of its conversation.

    What many texts share is nobody's own, and is somebody's again when many of them went; so it is asked again until
    none leaks.
    """
    kept, conversation = np.arange(len(dataset)), conversations(dataset, side)
    while len(found := overlaps(dataset.select(kept), side[kept], text_column)):
        hits = kept[found[side[kept[found[:, 0]]] < found[:, 1], 0]]
        if not len(hits):
            break
        kept = kept[~np.isin(conversation[kept], conversation[hits])]
    out = np.ones(len(dataset), dtype=bool)
    out[kept] = False
    return out


def kept_apart(
    dataset: "Dataset", side: np.ndarray, group: np.ndarray, text_column: str = "text", processes: int = 1
) -> np.ndarray:
    """The split of each row, changed where a row holds a text of a later split (train, validation, test), until none
    does.

    Nothing is left out. The groups that hold one text become one, which is held out if its split does not grow by it,
    and else trained on. Where more than `FEW` groups hold a text, it is common, and the rows whose text it is are
    trained on, where they do no harm.

    Args:
        side: the split of each row as its number in `SPLITS`, (rows,).
        group: rows of one group stand in one split, and go on doing so, (rows,).
        processes: how many look for the texts.
    """
    side, group = side.copy(), first_of_each(group)
    room = np.bincount(side, minlength=len(SPLITS))
    trained = np.zeros(len(side), dtype=bool)  # for good
    sought = np.zeros(len(side), dtype=bool)
    pairs, owned = np.empty((0, 2), dtype=np.int64), np.empty((2, 0), dtype=np.int64)
    for turn in range(_ROUNDS):  # rows that came into a held-out split have not been looked for yet
        new = np.flatnonzero((side != 0) & ~sought)
        if not len(new):
            break
        sought[new] = True
        more, (owner, number) = _held(dataset, new, text_column, processes)
        offset = int(max(pairs[:, 1].max(initial=-1), owned[1].max(initial=-1))) + 1
        pairs = np.concatenate([pairs, more + [0, offset]])
        owned = np.concatenate([owned, np.stack([owner, number + offset])], axis=1)
        while len(links := _torn(pairs, owned, side, group, trained)):
            group = groups(np.concatenate([np.stack([group, np.arange(len(group))], axis=1), links]), len(group))
            trained = np.isin(group, group[trained])
            side[trained] = 0
            _settle(side, group, trained, room, pull=turn < _ROUNDS - 1)
    return side


def _torn(pairs: np.ndarray, owned: np.ndarray, side: np.ndarray, group: np.ndarray, trained: np.ndarray) -> np.ndarray:
    """Links between the rows that hold one held-out text, where a row of an earlier split does, (links, 2); where they
    are too many, the text's own rows are marked in `trained`, and linked with themselves."""
    count = int(max(pairs[:, 1].max(initial=-1), owned[1].max(initial=-1))) + 1
    lowest = np.full(count, len(SPLITS))
    np.minimum.at(lowest, pairs[:, 1], side[pairs[:, 0]])
    torn = np.zeros(count, dtype=bool)
    owner, number = owned[:, side[owned[0]] > lowest[owned[1]]]
    torn[number] = True
    holders = np.unique(np.stack([pairs[:, 1], group[pairs[:, 0]]]), axis=1)[0]
    common = torn & (np.bincount(holders, minlength=count) > FEW)
    alone = owner[common[number]]
    trained[alone] = True
    joined = pairs[(torn & ~common)[pairs[:, 1]]]
    first = np.full(count, len(side), dtype=np.int64)
    np.minimum.at(first, joined[:, 1], joined[:, 0])
    links = np.stack([first[joined[:, 1]], joined[:, 0]], axis=1)
    return np.concatenate([links, np.stack([alone, alone], axis=1)])


def _settle(side: np.ndarray, group: np.ndarray, trained: np.ndarray, room: np.ndarray, pull: bool) -> None:
    """Put each group that stands in several splits into one."""
    order = np.argsort(group, kind="stable")
    begins = np.flatnonzero(np.diff(group[order], prepend=-1))
    low, high = (f.reduceat(side[order], begins) for f in (np.minimum, np.maximum))
    torn = np.flatnonzero(low != high)
    sizes = np.diff(np.append(begins, len(order)))
    members = {int(i): order[begins[i] : begins[i] + sizes[i]] for i in torn[np.argsort(sizes[torn], kind="stable")]}
    filled = np.bincount(side, minlength=len(SPLITS))
    for rows in members.values():
        filled -= np.bincount(side[rows], minlength=len(SPLITS))
    for rows in members.values():
        split = 1 + int(np.argmax(np.bincount(side[rows], minlength=len(SPLITS))[1:]))
        # An empty split may take more than it had, within reason.
        fits = filled[split] + len(rows) <= room[split] or (filled[split] == 0 and 4 * len(rows) <= len(side))
        side[rows] = split if pull and fits else 0
        trained[rows] = side[rows] == 0
        filled[side[rows[0]]] += len(rows)


def _held(
    dataset: "Dataset", wanted: np.ndarray, text_column: str, processes: int = 1
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Which rows of the table hold which text of the `wanted` rows, by its number, (pairs, 2) int64, and of each such
    text the row whose it is and the number."""
    rows_at = table.rows_at(dataset, text_column)
    parts = [_units(part, rows_at(part)) for part in _parts(wanted)]
    owner = np.concatenate([np.empty(0, dtype=np.int64), *(rows for rows, _, _ in parts)])
    held_out = HeldOut([t for _, texts, _ in parts for t in texts], [a for *_, asked in parts for a in asked])
    del parts
    if not len(owner):
        return np.empty((0, 2), dtype=np.int64), (owner, owner)
    touched = _parts(_count(held_out, dataset, text_column, processes))
    held_out.settle()

    def holders(part: np.ndarray) -> np.ndarray:
        rows, texts, _ = _units(part, rows_at(part))
        pairs = held_out.pairs(texts)
        return np.unique(np.stack([rows[pairs[:, 0]], pairs[:, 1]], axis=1), axis=0)

    found = [np.empty((0, 2), dtype=np.int64), *in_order(holders, touched, processes)]
    said = held_out.number >= 0
    return np.concatenate(found), (owner[said], held_out.number[said])


def _count(held_out: HeldOut, dataset: "Dataset", text_column: str, processes: int = 1) -> np.ndarray:
    """Count the texts of a table; the rows of which one shares anything with a held-out text."""
    rows_at, touched = table.rows_at(dataset, text_column), [np.empty(0, dtype=np.int64)]

    def shared(part: range) -> tuple[np.ndarray, tuple]:
        rows, texts, asked = _units(part, rows_at(part))
        return rows, held_out.sharing(texts, asked)

    for rows, found in in_order(shared, table.parts(len(dataset)), processes):
        touched.append(np.unique(rows[held_out.add(*found)]))
    return np.concatenate(touched)


def _parts(rows: np.ndarray) -> list[np.ndarray]:
    return [rows[part.start : part.stop] for part in table.parts(len(rows))]


def _units(indices: Sequence[int], rows: list[dict]) -> Units:
    owner, texts, asked = [], [], []
    for i, row in zip(indices, rows, strict=True):
        units = batches.units(row)
        owner += [i] * len(units)
        texts += units
        asked += [True, *[False] * (len(units) - 1)]
    return np.array(owner, dtype=np.int64), texts, asked


def conversations(dataset: "Dataset", side: np.ndarray) -> np.ndarray:
    """The first row of the conversation that each row belongs to, (rows,) int64."""
    if "where" not in dataset.column_names:
        return np.arange(len(dataset))
    keys = [exact_keys(part["where"].to_pylist()) for part in table.stretches(dataset, ["where"])]
    keys = np.concatenate([np.empty(0, dtype=np.uint64), *keys])
    return first_of_each(keys * np.uint64(len(SPLITS)) + side.astype(np.uint64))
