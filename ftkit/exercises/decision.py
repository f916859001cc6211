"""Checks a reader's answer to the exercise on when fine-tuning pays."""

import math
from collections.abc import Callable


def check_requests(requests: Callable[[int, int, int, int], int]) -> str:
    """Check `requests(weights, training_tokens, long_prompt, short_prompt)`, after how many LoRA has paid for itself.

    Args:
        requests: takes the weights that a token is multiplied with, the tokens of a LoRA run, and the tokens of the
            prompt that would otherwise be needed and of the one that the tuned model needs; returns whole requests.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with a hint.
    """
    for weights, tokens, long, short in (
        (10**9, 10**6, 700, 200),
        (135 * 10**6, 40_000, 320, 130),
        (8 * 10**9, 1, 2, 1),
    ):
        right = math.ceil(2 * tokens / (long - short))
        try:
            answer = requests(weights, tokens, long, short)
        except ArithmeticError as error:
            return f"Not yet: Python says: {error}."
        if not isinstance(answer, int) or isinstance(answer, bool):
            return f"Not yet: it must be a whole number of requests, not {answer!r}."
        if answer != right:
            hint = (
                " Training a token costs as much as reading how many?"
                if answer == math.ceil(tokens / (long - short))
                else ""
            )
            return (
                f"Not yet: {tokens:,} training tokens and {long} against {short} give {right:,}, not {answer:,}.{hint}"
            )
    return "Right: the number of weights cancels."
