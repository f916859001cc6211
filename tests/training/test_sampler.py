"""The order of the rows: every row once an epoch, anew in each, the same for the same seed; like lengths together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ftkit.training.sampler import EpochSampler


def order(lengths, epoch=0, seed=0, group=None):
    sampler = EpochSampler(lengths, seed, group)
    sampler.set_epoch(epoch)
    return list(sampler)


@given(st.lists(st.integers(1, 99), max_size=60), st.integers(0, 9), st.none() | st.integers(1, 7))
def test_every_row_comes_once_an_epoch(lengths, epoch, group):
    found = order(lengths, epoch, group=group)
    assert sorted(found) == list(range(len(lengths))) and found == order(lengths, epoch, group=group)


@pytest.mark.parametrize("group", [None, 4])
def test_each_epoch_and_each_seed_has_its_own_order(group):
    lengths = [i % 9 + 1 for i in range(50)]
    assert order(lengths, 0, group=group) != order(lengths, 1, group=group)
    assert order(lengths, 0, group=group) != order(lengths, 0, seed=5, group=group)


def padding(lengths, rows, group):
    batches = [[lengths[row] for row in rows[i : i + group]] for i in range(0, len(rows), group)]
    return sum(max(batch) * len(batch) - sum(batch) for batch in batches)


def test_rows_of_like_length_share_a_step_and_the_incomplete_one_is_last():
    lengths = [(37 * i) % 101 + 1 for i in range(301)]
    grouped = order(lengths, group=8)
    assert padding(lengths, grouped, 8) < 0.2 * padding(lengths, order(lengths), 8)
    longest = [max(lengths[row] for row in grouped[i : i + 8]) for i in range(0, 296, 8)]
    assert longest not in (sorted(longest), sorted(longest, reverse=True))  # length does not follow the schedule
