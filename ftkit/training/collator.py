"""Rows of different lengths become one batch, no wider than its longest row."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ftkit.data.chat import IGNORE_INDEX


@dataclass(frozen=True)
class Collator:
    """Pads `input_ids` and `labels` on the right, and masks what it added by position.

    A token is padding because it stands behind the row's end, never because of its id: many models pad with the very
    token that ends a turn (SmolLM2 does), and masking by id would leave them without a stop to learn.

    Packed rows bring `position_ids`. Their batch has those in place of an attention mask, since with a mask the
    attention no longer looks for the borders between the rows packed; padding is one more row behind them.

    FlashAttention finds borders in a batch of one row only, and with more mixes the rows packed without a word:
    `one_row` puts the rows of such a batch behind one another.

    Where rows say which of the data they are (`row`), the batch does so too (`rows`), for messages about it.
    """

    pad_token_id: int
    one_row: bool = False

    def __call__(self, rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        """`input_ids`, `labels` and `attention_mask`, or `position_ids` of packed rows: (rows, longest row), int64.

        Packed rows under `one_row`: (1, rows x longest row).
        """
        width = max(len(row["input_ids"]) for row in rows)
        packed = "position_ids" in rows[0]
        batch = {
            "input_ids": torch.full((len(rows), width), self.pad_token_id),
            "position_ids" if packed else "attention_mask": torch.zeros(len(rows), width, dtype=torch.long),
            "labels": torch.full((len(rows), width), IGNORE_INDEX),
        }
        for i, row in enumerate(rows):
            n = len(row["input_ids"])
            batch["input_ids"][i, :n] = torch.tensor(row["input_ids"])
            if packed:
                batch["position_ids"][i, :n] = torch.tensor(row["position_ids"])
                batch["position_ids"][i, n:] = torch.arange(width - n)
            else:
                batch["attention_mask"][i, :n] = 1
            batch["labels"][i, :n] = torch.tensor(row["labels"])
        # The first position has no predecessor to be predicted from.
        batch["labels"][:, 0] = IGNORE_INDEX
        if packed and self.one_row:
            batch = {name: part.reshape(1, -1) for name, part in batch.items()}
        if "row" in rows[0]:
            batch["rows"] = torch.tensor([row["row"] for row in rows])
        return batch
