"""Parts that forks work on come back in order, with errors and all."""

import multiprocessing
import os
import signal

import pyarrow as pa
import pytest

from ftkit.data import table
from ftkit.data.formats import BrokenRow
from ftkit.data.parallel import in_order
from ftkit.errors import DataError


@pytest.mark.parametrize("processes", [1, 2, 3, 50])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_results_come_in_order_whatever_the_number_of_processes(processes, count):
    factor = 3  # a closure needs no pickling
    assert list(in_order(lambda n: n * factor, range(count), processes)) == [n * 3 for n in range(count)]


def test_several_processes_work_and_large_results_come_through():
    found = list(in_order(lambda n: (os.getpid(), bytes([n]) * 10**6), range(6), 2))
    assert len({pid for pid, _ in found}) == 2 and os.getpid() not in dict(found)
    assert [text for _, text in found] == [bytes([n]) * 10**6 for n in range(6)]


def test_the_first_error_in_order_is_raised_as_it_was_and_nothing_stays():
    def failing(n: int) -> int:
        if n >= 3:
            raise BrokenRow(f"line {n}", "is broken.", "broken")
        return n

    seen = []
    with pytest.raises(BrokenRow, match="^line 3: is broken.$") as caught:
        for n in in_order(failing, range(8), 2):
            seen.append(n)
    assert seen == [0, 1, 2] and caught.value.reason == "broken" and not multiprocessing.active_children()


def test_who_stops_taking_leaves_no_process_behind():
    """Even where the parent goes on after a SIGTERM, as a trainer does to save its step."""
    usual = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        results = in_order(lambda n: b"x" * 10**6, range(100), 2)
        next(results)
        results.close()
    finally:
        signal.signal(signal.SIGTERM, usual)
    assert not multiprocessing.active_children()


def test_a_process_that_was_killed_is_a_sentence():
    """Whether it ends between two results or within one: a pipe does not take a megabyte before someone reads."""
    results = in_order(lambda n: (os.getpid(), b"x" * 10**6), range(8), 2)
    next(results)
    process, _ = next(results)
    os.kill(process, signal.SIGKILL)
    with pytest.raises(DataError, match="ended from outside.*set num_proc to fewer"):
        list(results)


def test_a_table_is_handed_over_without_what_it_was_cut_from():
    whole = pa.table({"text": [f"{n:0100d}" for n in range(10_000)], "ids": [[n] * 9 for n in range(10_000)]})
    part = pa.concat_tables([whole.slice(5, 3), whole.slice(9_000, 2)])
    raw = table.to_bytes(part)
    assert table.from_bytes(raw).equals(part) and len(raw) < 5_000
