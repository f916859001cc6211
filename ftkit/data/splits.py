"""Splits that keep what belongs together on one side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ftkit.data import table
from ftkit.data.sources import SPLITS
from ftkit.errors import ConfigError

if TYPE_CHECKING:
    from datasets import Dataset


def grouped_split(groups: Sequence[int], shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Indices of each split, shuffled; rows of one group never stand in two splits.

    Args:
        groups: the group of each row, e.g. of near-duplicates and of rows with one prompt.
        shares: of each split, at least 0, adding up to 1. A split with a share gets at least one group while there
            are as many groups as splits; how close the sizes come otherwise depends on the groups' sizes.
        seed: the same seed gives the same splits.

    Raises:
        ConfigError: a share is negative or the shares do not add up to 1.
    """
    if any(share < 0 for share in shares.values()) or abs(sum(shares.values()) - 1) > 1e-6:
        stated = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        raise ConfigError(f"the shares of the splits must be at least 0 and add up to 1: {stated}.")
    groups = np.asarray(groups)
    rng = np.random.default_rng(seed)
    names, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    chosen = [name for name, share in shares.items() if share > 0]
    room = _targets(len(groups), [shares[name] for name in chosen])
    empty = set(range(len(chosen)))
    side = np.empty(len(names), dtype=np.int64)
    # Large groups first, each to the split that lacks most; the order among groups of one size is drawn.
    order = rng.permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    for placed, group in enumerate(order.tolist()):
        if len(order) - placed <= len(empty):  # the last groups go to splits that would stay empty
            split = max(sorted(empty), key=lambda s: room[s])
        else:
            split = room.index(max(room))
        side[group] = split
        room[split] -= sizes[group]
        empty.discard(split)
    where = side[inverse] if len(groups) else np.empty(0, dtype=np.int64)
    made = {name: np.flatnonzero(where == chosen.index(name)) if name in chosen else [] for name in shares}
    return {name: rng.permutation(np.asarray(rows, dtype=np.int64)) for name, rows in made.items()}


def _targets(count: int, shares: list[float]) -> list[int]:
    """Whole numbers that add up to `count`, by largest remainder; at least 1 each where `count` allows."""
    exact = [count * share for share in shares]
    targets = [int(x + 1e-9) for x in exact]
    for i in sorted(range(len(shares)), key=lambda i: targets[i] - exact[i])[: count - sum(targets)]:
        targets[i] += 1
    while count >= len(shares) and 0 in targets:
        targets[targets.index(max(targets))] -= 1
        targets[targets.index(0)] += 1
    return targets


def split_numbers(dataset: "Dataset") -> np.ndarray:
    """The split of each row as its number in `SPLITS`, (rows,) int64; all 0 where the table does not tell."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if "split" not in dataset.column_names:
        return np.zeros(len(dataset), dtype=np.int64)
    known = pa.array(SPLITS)
    made = [pc.index_in(part["split"], known).to_numpy() for part in table.stretches(dataset, ["split"])]
    return np.concatenate(made).astype(np.int64) if made else np.empty(0, dtype=np.int64)


def held_out_first(dataset: "Dataset") -> np.ndarray | None:
    """An order in which test rows come first, then validation; None where all rows are of one split."""
    splits = split_numbers(dataset)
    return np.argsort(-splits, kind="stable") if len(set(splits.tolist())) > 1 else None
