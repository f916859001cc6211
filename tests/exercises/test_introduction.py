"""The checker accepts what is right and names what is wrong."""

import pytest

from ftkit.exercises.introduction import check_share


def _pairs(layers, r):
    return sum(r * (d_in + d_out) for d_in, d_out in layers)


def test_the_right_answer_is_accepted():
    assert check_share(lambda layers, r: _pairs(layers, r) / sum(a * b for a, b in layers)).startswith("Right")


@pytest.mark.parametrize(
    ("says", "share"),
    [
        ("it is", lambda layers, r: _pairs(layers, r)),
        ("Is every layer square?", lambda layers, r: sum(2 * a * r for a, _ in layers) / sum(a * b for a, b in layers)),
        ("returned NoneType", lambda layers, r: None),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, share):
    verdict = check_share(share)
    assert verdict.startswith("Not yet") and says in verdict
