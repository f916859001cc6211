"""Checks a reader's answer to the exercise on early stopping."""

from collections.abc import Callable, Sequence

CASES = (
    ([3.0, 2.0, 1.0], 1, None, "the last evaluation is the best one: go on"),
    ([3.0, 1.0, 2.0], 2, None, "only one evaluation has come since the best, and the patience is 2"),
    ([3.0, 1.0, 2.0, 1.5], 2, 1, "two evaluations have come since the best one, at index 1"),
    ([1.0, 2.0, 1.5, 1.2], 3, 0, "the losses fall again, but none is better than the first"),
    ([2.0, 1.0, 3.0, 0.5, 0.9], 1, 3, "the best one is at index 3, not the first low one"),
)


def check_stop(stop: Callable[[Sequence[float], int], int | None]) -> str:
    """Check `stop(losses, patience)`: the index of the best evaluation if the last `patience` brought nothing better.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    for losses, patience, wanted, why in CASES:
        found = stop(list(losses), patience)
        if found != wanted or isinstance(found, bool):
            return f"Not yet: for {losses} and patience {patience} it is {wanted}, not {found!r}: {why}."
    return "Right: it waits as long as it should, and goes back to the best."
