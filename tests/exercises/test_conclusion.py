import math

import pytest

from ftkit.exercises.conclusion import check_dpo


def inside(chosen, rejected, reference_chosen, reference_rejected, beta):
    return beta * ((chosen - reference_chosen) - (rejected - reference_rejected))


def minus_log_sigmoid(x):
    return math.log(1 + math.exp(-x))


def test_right():
    assert check_dpo(lambda *case: minus_log_sigmoid(inside(*case))).startswith("Right")


@pytest.mark.parametrize(
    ("loss", "hint"),
    [
        (lambda c, r, rc, rr, beta: minus_log_sigmoid(beta * (c - r)), "reference is missing"),
        (lambda *case: minus_log_sigmoid(-inside(*case)), "sign is turned"),
        (lambda *case: minus_log_sigmoid(inside(*case[:4], 1.0)), "Where is beta"),
        (lambda *case: 1 / (1 + math.exp(-inside(*case))), "negative logarithm"),
        (inside, "inside of the sigmoid"),
        (lambda *case: math.log(0), "Python says"),
        (lambda *case: None, "must be a number"),
        (lambda *case: 0.0, "Not yet"),
    ],
)
def test_wrong_gets_its_hint(loss, hint):
    verdict = check_dpo(loss)
    assert verdict.startswith("Not yet") and hint in verdict


def test_the_stub_gets_no_hint_that_is_not_its():
    assert check_dpo(lambda *case: 0.0).endswith("not 0.0.")
