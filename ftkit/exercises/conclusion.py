"""Checks a reader's answer to the exercise on the loss of preferences."""

import math
from collections.abc import Callable

CASES = (  # log-probabilities: chosen and rejected by the model, then by the reference; beta
    (-10.0, -14.0, -12.0, -9.0, 0.1),
    (-12.0, -9.0, -12.0, -9.0, 0.1),
    (-20.0, -8.0, -12.0, -9.0, 0.5),
    (-3.0, -40.0, -5.0, -30.0, 0.2),
)


def check_dpo(loss: Callable[[float, float, float, float, float], float]) -> str:
    """Check `loss(chosen, rejected, reference_chosen, reference_rejected, beta)`, DPO's loss of one pair of answers.

    Rafailov et al., *Direct Preference Optimization*, arXiv 2305.18290, section 4.

    Args:
        loss: takes the log-probabilities of both answers under the model and under the reference, and beta; returns
            the loss in nats.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    for case in CASES:
        chosen, rejected, reference_chosen, reference_rejected, beta = case
        margin = (chosen - reference_chosen) - (rejected - reference_rejected)
        try:
            answer = loss(*case)
        except (ArithmeticError, TypeError, ValueError) as error:
            return f"Not yet: Python says: {error}."
        if not isinstance(answer, int | float):
            return f"Not yet: it must be a number, not {type(answer).__name__}."
        right = _minus_log_sigmoid(beta * margin)
        if not math.isclose(answer, right, rel_tol=1e-6, abs_tol=1e-9):
            hints = {
                " The reference is missing.": _minus_log_sigmoid(beta * (chosen - rejected)),
                " The sign is turned: the chosen answer should become more likely.": _minus_log_sigmoid(-beta * margin),
                " Where is beta?": _minus_log_sigmoid(margin),
                " That is the sigmoid; take its negative logarithm.": 1 / (1 + math.exp(-beta * margin)),
                " That is what stands inside of the sigmoid.": beta * margin,
            }
            close = (hint for hint, value in hints.items() if math.isclose(answer, value, abs_tol=1e-9))
            return f"Not yet: for {case} it is {right:.6f}, not {answer!r}.{next(close, '')}"
    return "Right: it starts at log 2, and falls as the chosen answer gains on the rejected one beyond the reference."


def _minus_log_sigmoid(x: float) -> float:
    return math.log1p(math.exp(-abs(x))) + max(-x, 0.0)
