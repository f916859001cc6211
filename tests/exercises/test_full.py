"""A checker must accept what is right, name what is wrong, and never raise."""

import math

import pytest

from ftkit.exercises.full import check_adamw, check_mean_loss


def adamw(
    w, g, m, v, t, rate, b1, b2, eps, decay, correct=True, root=math.sqrt, pull=lambda rate, decay, w: rate * decay * w
):
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    m_hat, v_hat = (m / (1 - b1**t), v / (1 - b2**t)) if correct else (m, v)
    return w - rate * m_hat / (root(v_hat) + eps) - pull(rate, decay, w), m, v


def variant(**changes):
    return lambda *case, **rest: adamw(*case, **rest, **changes)


def test_the_right_answer_is_accepted():
    assert check_adamw(adamw).startswith("Right")


@pytest.mark.parametrize(
    ("says", "step"),
    [
        ("divide them by 1 - b1**t", variant(correct=False)),
        ("Where is the weight decay?", variant(pull=lambda rate, decay, w: 0.0)),
        ("multiplied by the learning rate", variant(pull=lambda rate, decay, w: decay * w)),
        ("it is subtracted", variant(pull=lambda rate, decay, w: -rate * decay * w)),
        ("square root", variant(root=lambda v: v)),
        ("the new m is 0.05", lambda w, g, m, v, t, rate, **rest: (w - rate * g, m, v)),
        ("Python says", lambda *case, **rest: None),
        ("Python says", lambda w, g, m, v, t, rate, **rest: (w / v, m, v)),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, step):
    verdict = check_adamw(step)
    assert verdict.startswith("Not yet") and says in verdict


def test_the_mean_over_tokens_is_accepted():
    assert check_mean_loss(lambda b: sum(x * n for x, n in b) / sum(n for _, n in b)).startswith("Right")


@pytest.mark.parametrize(
    ("says", "mean_loss"),
    [
        ("mean of the means", lambda batches: sum(loss for loss, _ in batches) / len(batches)),
        ("how many tokens", lambda batches: sum(loss * tokens for loss, tokens in batches)),
        ("not of batches", lambda batches: sum(loss * tokens for loss, tokens in batches) / len(batches)),
        ("it is 3.5, not 1", lambda batches: 1),
        ("Python says", lambda batches: sum(batches)),
    ],
)
def test_another_mean_is_told_what_it_is(says, mean_loss):
    verdict = check_mean_loss(mean_loss)
    assert verdict.startswith("Not yet") and says in verdict
