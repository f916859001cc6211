"""The checker accepts what is right and names what is wrong."""

import pytest

from ftkit.exercises.decision import check_requests


def test_the_right_answer_is_accepted():
    assert check_requests(lambda n, tokens, long, short: -(-2 * tokens // (long - short))).startswith("Right")


@pytest.mark.parametrize(
    ("says", "requests"),
    [
        ("how many?", lambda n, tokens, long, short: -(-tokens // (long - short))),
        ("give 4,000, not 0", lambda n, tokens, long, short: 0),
        ("whole number", lambda n, tokens, long, short: 2 * tokens / (long - short)),
        ("Python says", lambda n, tokens, long, short: 1 // 0),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, requests):
    verdict = check_requests(requests)
    assert verdict.startswith("Not yet") and says in verdict
