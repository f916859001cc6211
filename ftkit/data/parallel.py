"""Work on many rows: a function of many parts in several processes, given back in order, and few collections."""

import gc
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

from ftkit.errors import DataError

_ALLOCATIONS = 200_000  # between two collections of cycles, about what one batch of rows allocates
_AHEAD = 4  # results of one process that wait for their turn


def in_order(function: Callable[[Any], Any], parts: Sequence[Any], processes: int) -> Iterator[Any]:
    """`function` of each of `parts`, one after the other.

    Above one process, forks of this one share the parts out among them: all that the function holds is theirs without a
    copy, what it changes stays there, and its results, which are pickled, wait here for their turn, a few of each
    process. Where a system cannot fork, everything happens here.

    Raises:
        Exception: what the function raised.
        DataError: a process was ended from outside.
    """
    processes = min(processes, len(parts))
    if processes < 2 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(function, parts)
        return
    fork, workers, receivers = multiprocessing.get_context("fork"), [], []
    try:
        for i in range(processes):
            receiver, sender = fork.Pipe(duplex=False)
            receivers.append(receiver)
            arguments = function, parts[i::processes], sender, tuple(receivers)
            workers.append(fork.Process(target=_work, args=arguments, daemon=True))
            workers[-1].start()
            sender.close()
        owed = {receiver: len(parts[i::processes]) for i, receiver in enumerate(receivers)}
        waiting: dict[Any, deque] = {receiver: deque() for receiver in receivers}
        for i in range(len(parts)):
            turn = receivers[i % processes]
            while not waiting[turn]:
                _receive(owed, waiting, turn)
            result, error = waiting[turn].popleft()
            if error is not None:
                raise error
            yield result
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for receiver in receivers:
            receiver.close()


def _receive(owed: dict[Any, int], waiting: dict[Any, deque], turn: Any) -> None:
    """Take what is there, of the process whose turn it is or of another: who must wait with a result does no work."""
    for receiver in wait([r for r in owed if owed[r] and (r is turn or len(waiting[r]) < _AHEAD)]):
        try:
            result, error = receiver.recv()
        except (EOFError, OSError):  # at the beginning of a result, or within it
            raise DataError(
                "a process that worked on the rows was ended from outside, perhaps for want of memory; "
                "set num_proc to fewer."
            ) from None
        waiting[receiver].append((result, error))
        owed[receiver] = 0 if error is not None else owed[receiver] - 1


def _work(function: Callable[[Any], Any], parts: Sequence[Any], sender, receivers) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent answers it,
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # and ends this process, whatever it does about its own end
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # threads do not survive a fork, and each process has its core
    for receiver in receivers:
        receiver.close()  # else a parent that was killed would leave this process waiting to send
    for part in parts:
        try:
            result = function(part), None
        except Exception as error:
            sender.send((None, error))
            return
        sender.send(result)


@contextmanager
def few_collections() -> Iterator[None]:
    """Rows are lists and dictionaries by the thousand and no garbage: collecting cycles as often as Python does takes a
    fifth of the time. What stands already is left out, so that forked workers neither look through it nor copy it."""
    usual = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
        gc.unfreeze()
