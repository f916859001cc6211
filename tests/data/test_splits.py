"""Splits: every row once, a group on one side, sizes as asked."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.splits import grouped_split
from ftkit.errors import ConfigError

SHARES = {"train": 0.9, "validation": 0.05, "test": 0.05}


@settings(max_examples=1000, deadline=None)
@given(groups=st.lists(st.integers(0, 30), max_size=120), seed=st.integers(0, 2**32 - 1))
def test_every_row_once_and_every_group_on_one_side(groups, seed):
    splits = grouped_split(groups, SHARES, seed)
    assert sorted(i for rows in splits.values() for i in rows) == list(range(len(groups)))
    sides = [{groups[i] for i in rows} for rows in splits.values()]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    if len(set(groups)) >= 3:
        assert all(sides)
    again = grouped_split(groups, SHARES, seed)
    assert all((splits[name] == again[name]).all() for name in SHARES)


@settings(max_examples=1000, deadline=None)
@given(count=st.integers(0, 400), train=st.integers(0, 100), validation=st.integers(0, 100))
def test_e7_13_sizes_are_the_shares_rounded(count, train, validation):
    if train + validation > 100:
        train, validation = 100 - train, 100 - validation
    shares = {"train": train / 100, "validation": validation / 100, "test": (100 - train - validation) / 100}
    splits = grouped_split(range(count), shares, 0)
    for name, share in shares.items():
        assert abs(len(splits[name]) - share * count) <= 2.5 or count < 3
        assert share > 0 or not len(splits[name])


def test_e7_13_small_data_has_a_validation_row_and_29_percent_of_100_are_29():
    assert [len(rows) for rows in grouped_split(range(10), SHARES, 0).values()] == [8, 1, 1]
    assert len(grouped_split(range(100), {"train": 0.29, "test": 0.71}, 0)["train"]) == 29


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.1}, {"a": 0.9, "b": 0.2}, {"a": 1.5, "b": -0.5}])
def test_e7_13_shares_that_do_not_add_up_are_refused(shares):
    with pytest.raises(ConfigError, match="add up to 1"):
        grouped_split(range(10), shares, 0)
