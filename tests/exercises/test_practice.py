"""The checker of early stopping accepts what is right and names what is wrong."""

import pytest

from ftkit.exercises.practice import check_stop


def stop(losses, patience):
    best = min(range(len(losses)), key=losses.__getitem__)
    return best if len(losses) - 1 - best >= patience else None


def first_rise(losses, patience):
    return next((i for i in range(len(losses) - 1) if losses[i + 1] > losses[i]), None)


def test_the_right_answer_is_accepted():
    assert check_stop(stop).startswith("Right")


@pytest.mark.parametrize(
    ("says", "answer"),
    [
        ("two evaluations have come", lambda losses, patience: None),
        ("the last evaluation is the best", lambda losses, patience: 0),
        ("only one evaluation", first_rise),
        ("go on", lambda losses, patience: False),
        ("not the first low one", lambda losses, patience: 1 if losses[0] == 2 else stop(losses, patience)),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(says, answer):
    verdict = check_stop(answer)
    assert verdict.startswith("Not yet") and says in verdict
