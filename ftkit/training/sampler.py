"""The order of the training rows: a function of seed and epoch alone, so that a resumed run finds its place."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 50
"""Steps' worth of rows among which like lengths are put together: enough to save most padding, few enough to keep the
order random."""


class EpochSampler(Sampler[int]):
    """A fresh random order in every epoch; with `group`, one in which neighbours have like lengths.

    Args:
        lengths: of the rows, in tokens.
        seed: of the order. Epoch e is drawn with `seed + e`.
        group: rows of one optimizer step, which are given like lengths; None for a plain random order.
    """

    def __init__(self, lengths: Sequence[int], seed: int, group: int | None = None) -> None:
        self.lengths, self.seed, self.group, self.epoch = lengths, seed, group, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the data loader before each pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        return iter(order if self.group is None else self._grouped(order, generator))

    def _grouped(self, order: list[int], generator: torch.Generator) -> list[int]:
        window, groups = WINDOW * self.group, []
        for start in range(0, len(order), window):
            alike = sorted(order[start : start + window], key=lambda row: -self.lengths[row])
            groups += [alike[i : i + self.group] for i in range(0, len(alike), self.group)]
        # Long and short steps in turn, so that the length does not follow the schedule; a short group stays last.
        full = [group for group in groups if len(group) == self.group]
        rest = [group for group in groups if len(group) < self.group]
        mixed = [full[i] for i in torch.randperm(len(full), generator=generator).tolist()]
        return [row for group in mixed + rest for row in group]
