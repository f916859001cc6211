"""Padding is decided by position: nothing that is trained or attended may depend on the pad token's id."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from ftkit.data.chat import IGNORE_INDEX
from ftkit.training.collator import Collator

ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=9).map(
        lambda row: {
            "input_ids": [token for token, _ in row],
            "labels": [token if trained else IGNORE_INDEX for token, trained in row],
        }
    ),
    min_size=1,
    max_size=5,
)


@given(rows=ROWS, pad=st.integers(0, 5), other=st.integers(0, 5))
def test_e7_8_the_pad_id_changes_neither_mask_nor_labels(rows, pad, other):
    one, two = Collator(pad)(rows), Collator(other)(rows)
    assert torch.equal(one["attention_mask"], two["attention_mask"]) and torch.equal(one["labels"], two["labels"])
    real = one["attention_mask"].bool()
    assert torch.equal(one["input_ids"][real], two["input_ids"][real])
    assert set(one["input_ids"][~real].tolist()) <= {pad}


@given(rows=ROWS)
def test_every_row_is_kept_whole_and_the_batch_is_no_wider_than_its_longest(rows):
    batch = Collator(0)(rows)
    assert batch["input_ids"].shape == (len(rows), max(len(row["input_ids"]) for row in rows))
    for i, row in enumerate(rows):
        n = len(row["input_ids"])
        assert batch["input_ids"][i, :n].tolist() == row["input_ids"]
        assert batch["attention_mask"][i].tolist() == [1] * n + [0] * (batch["input_ids"].shape[1] - n)
        assert batch["labels"][i, 1:n].tolist() == row["labels"][1:]
        assert set(batch["labels"][i, n:].tolist()) <= {IGNORE_INDEX}


def test_e7_8_the_stop_token_stays_trained_when_it_is_the_pad_token():
    stop = 2
    batch = Collator(stop)(
        [{"input_ids": [5, 7, stop], "labels": [-100, 7, stop]}, {"input_ids": [5], "labels": [-100]}]
    )
    assert batch["labels"].tolist() == [[-100, 7, stop], [-100, -100, -100]]
