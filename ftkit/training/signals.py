"""A run that is asked to stop ends after the step it is in, whose state is saved."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ftkit.training.trainer import TokenTrainer


@contextmanager
def stopped_by_signals(trainer: "TokenTrainer") -> Iterator[list[signal.Signals]]:
    """Within the block SIGTERM, SIGHUP and SIGINT end the run after the step it is in; gives those that came.

    What is ignored, as nohup does with SIGHUP, stays so.
    """
    came: list[signal.Signals] = []
    if threading.current_thread() is not threading.main_thread():  # only there can a signal be caught
        yield came
        return

    def stop(number, frame):
        if number in came and number == signal.SIGINT:
            raise KeyboardInterrupt
        if number == signal.SIGINT:
            print("\nstopping after this step; Ctrl-C again stops at once", file=sys.stderr)
        came.append(signal.Signals(number))
        trainer.interrupted = True

    trainer.interrupted = False  # an earlier `train` of this object may have been
    names = [name for name in ("SIGTERM", "SIGHUP", "SIGINT") if hasattr(signal, name)]  # Windows has no SIGHUP
    before = {number: signal.getsignal(number) for number in (getattr(signal, name) for name in names)}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
