"""Work on many rows: a function of many parts in several processes, given back in order, and few collections."""

import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ftkit.errors import DataError

_ALLOCATIONS = 200_000  # between two collections of cycles, about what one batch of rows allocates


def in_order(function: Callable[[Any], Any], parts: Sequence[Any], processes: int) -> Iterator[Any]:
    """`function` of each of `parts`, one after the other.

    Above one process, forks of this one share the parts out among them: all that the function holds is theirs without a
    copy, what it changes stays there, and its results, which are pickled, come as fast as they are taken. Where a
    system cannot fork, everything happens here.

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
        for i in range(len(parts)):
            try:
                result, error = receivers[i % processes].recv()
            except (EOFError, OSError):  # at the beginning of a result, or within it
                raise DataError(
                    "a process that worked on the rows was ended from outside, perhaps for want of memory; "
                    "set num_proc to fewer."
                ) from None
            if error is not None:
                raise error
            yield result
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()
        for receiver in receivers:
            receiver.close()


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
