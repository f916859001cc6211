"""Errors that a user meets: one sentence that says what is wrong, where, and what to do.

The command line prints that sentence and exits with code 2; in Python it is an ordinary exception. Every class also
derives from the builtin that a caller would expect, so that `except ValueError` keeps working.
"""

import difflib
from collections.abc import Iterable


class FtkitError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(FtkitError, ValueError):
    """A configuration that contradicts itself or holds an impossible value."""


class DataError(FtkitError, ValueError):
    """A data file that is missing, empty or broken; the text names the file and, where there is one, the line."""


class ModelError(FtkitError, ValueError):
    """A model that does not exist, cannot be loaded, or lacks what was asked of it."""


class TrainingError(FtkitError, RuntimeError):
    """A training run that cannot go on; what it had saved stands."""


class Interrupted(TrainingError):
    """A training run that was asked to stop by the signal `number`, and has saved its state."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class UnknownLayout(ModelError):
    """A model with layers that the memory estimator does not know; it may train all the same."""


class MissingDependency(FtkitError, ImportError):
    """An optional package is not installed; the text holds the command that installs it."""


def near_matches(name: str, known: Iterable[str], n: int = 3) -> str:
    """ " Did you mean 'a' or 'b'?" for the `known` names nearest to `name`; the empty string when none is near."""
    found = difflib.get_close_matches(name, list(known), n=n, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(f) for f in found)}?" if found else ""
