"""Packing from first principles: best fit by looking at every place, and the mask that keeps rows apart."""

from collections.abc import Sequence

import torch


def best_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of the rows that share a place: longest first, each into the place where least room remains.

    Looks at every place for every row, so time grows with their product.
    """
    places: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        fitting = [p for p in range(len(places)) if room[p] >= lengths[i]]
        if fitting:
            best = min(fitting, key=lambda p: room[p])
        else:
            best = len(places)
            places.append([])
            room.append(capacity)
        places[best].append(i)
        room[best] -= lengths[i]
    return places


def block_diagonal_causal_mask(position_ids: torch.Tensor) -> torch.Tensor:
    """Who may look at whom in a packed row: (tokens, tokens) bool, row t the places that token t attends to.

    Args:
        position_ids: (tokens,), beginning again at 0 with each packed row.
    """
    row = (position_ids == 0).cumsum(0)
    same_row = row[:, None] == row[None, :]
    causal = torch.ones(len(position_ids), len(position_ids), dtype=torch.bool).tril()
    return same_row & causal
