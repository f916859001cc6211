"""Checks a reader's answers to the exercises on full fine-tuning."""

import math
from collections.abc import Callable

Step = Callable[..., tuple[float, float, float]]
CASES = (  # w, g, m, v, t, rate
    (1.0, 0.5, 0.0, 0.0, 1, 0.1),
    (-2.0, 0.001, 0.02, 0.003, 7, 0.01),
    (3.0, 0.0, 0.0, 0.0, 1, 0.1),
    (0.5, -4.0, 1.0, 2.0, 3, 0.2),
)


def check_adamw(step: Step) -> str:
    """Check `step(w, g, m, v, t, rate, b1, b2, eps, decay)`, one step of AdamW for one number.

    Args:
        step: takes weight, gradient, both means, the 1-based number of the step and the learning rate, and by name
            `b1`, `b2`, `eps` and `decay`; returns the new weight and means.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    rest = {"b1": 0.9, "b2": 0.95, "eps": 1e-8, "decay": 0.1}
    for case in CASES:
        try:
            w, m, v = step(*case, **rest)
        except (ArithmeticError, TypeError, ValueError) as error:
            return f"Not yet: Python says: {error}."
        right = _adamw(*case, **rest)
        for name, got, wanted in zip("mv", (m, v), right[1:], strict=True):
            if not _same(got, wanted):
                return f"Not yet: for g={case[1]:g} the new {name} is {wanted:.6g}, not {got!r}."
        if not _same(w, right[0]):
            return f"Not yet: for {_named(case)} the new weight is {right[0]:.6g}, not {w!r}.{_hint(w, case, rest)}"
    return "Right: the means, their correction, the division and the decay that stands outside of it."


def check_mean_loss(mean_loss: Callable[[list[tuple[float, int]]], float]) -> str:
    """Check `mean_loss(batches)`, the loss of a validation set from its batches.

    Args:
        mean_loss: takes `(mean loss, trained tokens)` of each batch; returns the mean over all tokens.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    for batches in ([(2.0, 10), (4.0, 30)], [(1.5, 7)], [(3.0, 5), (0.0, 0), (1.0, 15)]):
        total = sum(loss * tokens for loss, tokens in batches)
        right = total / sum(tokens for _, tokens in batches)
        try:
            answer = mean_loss(list(batches))
        except (ArithmeticError, TypeError, ValueError) as error:
            return f"Not yet: Python says: {error}."
        if not _same(answer, right):
            hints = {
                " That is the mean of the means: a token of a small batch weighs more.": sum(
                    loss for loss, _ in batches
                )
                / len(batches),
                " That is the sum; how many tokens does it belong to?": total,
                " Divide by the number of tokens, not of batches.": total / len(batches),
            }
            hint = next((text for text, value in hints.items() if _same(answer, value)), "")
            return f"Not yet: for {batches} it is {right:g}, not {answer!r}.{hint}"
    return "Right: every token weighs the same, however the rows were batched."


def _adamw(w, g, m, v, t, rate, b1, b2, eps, decay) -> tuple[float, float, float]:
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    direction = (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + eps)
    return w - rate * (direction + decay * w), m, v


def _hint(answer: object, case: tuple, rest: dict[str, float]) -> str:
    w, g, m, v, t, rate = case
    _, new_m, new_v = _adamw(*case, **rest)
    b1, b2, decay, eps = rest["b1"], rest["b2"], rest["decay"], rest["eps"]
    corrected = (new_m / (1 - b1**t)) / (math.sqrt(new_v / (1 - b2**t)) + eps)
    wrong = {
        " m and v begin at zero: divide them by 1 - b1**t and 1 - b2**t.": w
        - rate * (new_m / (math.sqrt(new_v) + eps) + decay * w),
        " Where is the weight decay?": w - rate * corrected,
        " The decay is multiplied by the learning rate too.": w - rate * corrected - decay * w,
        " The decay pulls towards zero: it is subtracted.": w - rate * (corrected - decay * w),
        " Divide by the square root of v.": w - rate * (new_m / (1 - b1**t) / (new_v / (1 - b2**t) + eps) + decay * w),
    }
    return next((hint for hint, value in wrong.items() if _same(answer, value)), "")


def _named(case: tuple) -> str:
    return ", ".join(f"{name}={value:g}" for name, value in zip(("w", "g", "m", "v", "t", "rate"), case, strict=True))


def _same(got: object, wanted: float) -> bool:
    return isinstance(got, int | float) and math.isclose(got, wanted, rel_tol=1e-6, abs_tol=1e-9)
