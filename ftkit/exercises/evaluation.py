"""Checks a reader's answers to the exercises on evaluation."""

import math
from collections.abc import Callable, Sequence

from ftkit.evaluation.uncertainty import mcnemar


def check_perplexity(perplexity: Callable[[Sequence[float], Sequence[int]], float]) -> str:
    """Check `perplexity(losses, lengths)` of a set of texts.

    Args:
        perplexity: takes the mean loss of each text, as a model returns it for labels equal to its ids (nan for a text
            of one token), and the number of tokens in each; returns the perplexity of the set, each prediction weighing
            the same.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    nan = math.nan
    for losses, lengths in (([2.0, 1.0], [3, 9]), ([3.0, nan, 1.0], [2, 1, 5]), ([nan, 0.5, nan], [1, 40, 0])):
        pairs = [(loss, n - 1) for loss, n in zip(losses, lengths, strict=True) if n > 1]
        total = sum(n for _, n in pairs)
        right = math.exp(sum(loss * n for loss, n in pairs) / total)
        try:
            answer = float(perplexity(list(losses), list(lengths)))
        except Exception as error:  # whatever a reader writes, the checker answers
            return f"Not yet: for losses {losses} and lengths {lengths} Python says: {error}."
        if math.isclose(answer, right, rel_tol=1e-9):
            continue
        if math.isnan(answer):
            return "Not yet: a text of one token predicts nothing, and its nan must not reach the others."
        wrong = math.exp(
            sum(loss * n for loss, n in zip(losses, lengths, strict=True) if n > 1) / sum(n for n in lengths if n > 1)
        )
        hint = " How many tokens of a text are predicted?" if math.isclose(answer, wrong, rel_tol=1e-9) else ""
        return f"Not yet: losses {losses} and lengths {lengths} give {right:.4f}, not {answer:.4f}.{hint}"
    return "Right: every prediction weighs the same, and what predicts nothing weighs nothing."


def check_mcnemar(p_value: Callable[[int, int], float]) -> str:
    """Check `p_value(only_base, only_tuned)`, McNemar's exact two-sided p-value.

    Args:
        p_value: takes the rows that the base alone and the tuned model alone got right.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    for only_base, only_tuned in ((2, 9), (9, 2), (0, 5), (4, 4), (0, 0), (600, 700)):
        base, tuned = [1] * only_base + [0] * (only_tuned + 1), [0] * only_base + [1] * only_tuned + [0]
        right = mcnemar(base, tuned).p_value
        try:
            answer = float(p_value(only_base, only_tuned))
        except Exception as error:  # whatever a reader writes, the checker answers
            return f"Not yet: for {only_base} against {only_tuned} rows Python says: {error}."
        if math.isclose(answer, right, rel_tol=1e-6):
            continue
        hint = ""
        if math.isclose(answer, right / 2, rel_tol=1e-6):
            hint = " A difference in either direction would have counted."
        elif answer > 1:
            hint = " It is a probability."
        return f"Not yet: {only_base} against {only_tuned} rows give {right:.4g}, not {answer:.4g}.{hint}"
    return "Right: only the rows on which the two models differ say anything about their difference."
