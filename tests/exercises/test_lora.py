"""A checker must accept what is right, name what is wrong, and never raise."""

import pytest

from ftkit.exercises.lora import check_merge


def test_the_right_answer_is_accepted():
    assert check_merge(lambda W, A, B, alpha: W + alpha / A.shape[0] * B @ A).startswith("Right")


@pytest.mark.parametrize(
    ("says", "merge"),
    [
        ("scaled by 1.", lambda W, A, B, alpha: W + B @ A),
        ("scaled by 16.", lambda W, A, B, alpha: W + alpha * B @ A),
        ("leave W as it was", lambda W, A, B, alpha: W.add_(alpha / A.shape[0] * B @ A)),
        ("In which order", lambda W, A, B, alpha: A @ A.T),
        ("torch says", lambda W, A, B, alpha: W + A @ B),
        ("returned NoneType", lambda W, A, B, alpha: None),
        ("answers otherwise", lambda W, A, B, alpha: W),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, merge):
    verdict = check_merge(merge)
    assert verdict.startswith("Not yet") and says in verdict
