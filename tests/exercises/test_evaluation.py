"""A checker must accept what is right, name what is wrong, and never raise."""

import math

import pytest

from ftkit.exercises.evaluation import check_mcnemar, check_perplexity


def by_prediction(losses, lengths):
    pairs = [(loss, n - 1) for loss, n in zip(losses, lengths, strict=True) if n > 1]
    return math.exp(sum(loss * n for loss, n in pairs) / sum(n for _, n in pairs))


def exact(only_base, only_tuned):
    n = only_base + only_tuned
    return min(1, 2 * sum(math.comb(n, k) for k in range(min(only_base, only_tuned) + 1)) / 2**n)


def test_right_answers_are_accepted():
    assert check_perplexity(by_prediction).startswith("Right")
    assert check_mcnemar(exact).startswith("Right")


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ("How many tokens", lambda x, n: math.exp(sum(a * b for a, b in zip(x, n, strict=True)) / sum(n))),
        ("must not reach", lambda x, n: math.exp(sum(x) / len(x)) if math.isnan(sum(x)) else by_prediction(x, n)),
        ("Python says", lambda x, n: 1 / 0),
        ("give 3.32", lambda x, n: 0),
        ("Python says", lambda x, n: None),
    ],
)
def test_a_wrong_perplexity_is_told_what_is_wrong(says, wrong):
    verdict = check_perplexity(wrong)
    assert verdict.startswith("Not yet") and says in verdict


@pytest.mark.parametrize(
    ("says", "wrong"),
    [
        ("either direction", lambda a, b: exact(a, b) / 2 if a != b else 1),
        ("probability", lambda a, b: 2 * sum(math.comb(a + b, k) for k in range(min(a, b) + 1)) / 2.0 ** (a + b)),
        ("Python says", lambda a, b: a / (a + b - 11)),
        ("not 0", lambda a, b: 0),
    ],
)
def test_a_wrong_p_value_is_told_what_is_wrong(says, wrong):
    verdict = check_mcnemar(wrong)
    assert verdict.startswith("Not yet") and says in verdict
