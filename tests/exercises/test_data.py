"""The checkers of the data exercises accept what is right, name what is wrong, and never raise."""

import pytest

from ftkit.exercises.data import check_labels, check_pack, check_similarity


def grams(text):
    return {text[i : i + 5] for i in range(len(text) - 4)}


def by_position(ids, start, length):
    return [token if start <= i < length else -100 for i, token in enumerate(ids)]


def packed(rows):
    return (
        [token for row in rows for token in row],
        [label for row in rows for label in [-100, *row[1:]]],
        [i for row in rows for i in range(len(row))],
    )


def test_the_right_answers_are_accepted():
    assert check_labels(by_position).startswith("Right")
    assert check_similarity(lambda a, b: len(grams(a) & grams(b)) / len(grams(a) | grams(b))).startswith("Right")
    assert check_pack(packed).startswith("Right")


@pytest.mark.parametrize(
    ("check", "says", "answer"),
    [
        (check_labels, "the prompt is trained", lambda ids, start, length: ids),
        (check_labels, "is not trained", lambda i, s, n: [t if s <= k and t != 2 else -100 for k, t in enumerate(i)]),
        (check_labels, "padding is trained", lambda i, s, n: [t if k >= s and t else -100 for k, t in enumerate(i)]),
        (check_labels, "another token", lambda i, s, n: [9 if s <= k < n else -100 for k in range(len(i))]),
        (check_labels, "need a list", lambda ids, start, length: ids[:length][:-1]),
        (check_labels, "raised ZeroDivisionError", lambda ids, start, length: 1 / 0),
        (check_similarity, "divide by the union", lambda a, b: len(grams(a) & grams(b))),
        (
            check_similarity,
            "smaller set",
            lambda a, b: len(grams(a) & grams(b)) / min(len(grams(a)), len(grams(b))),
        ),
        (check_similarity, "not None", lambda a, b: None),
        (check_pack, "must return", lambda rows: rows[0][:2]),
        (check_pack, "begin again", lambda rows: (*packed(rows)[:2], list(range(sum(map(len, rows)))))),
        (check_pack, "no target at a border", lambda rows: (sum(rows, []), sum(rows, []), packed(rows)[2])),
    ],
)
def test_a_wrong_answer_is_told_what_is_wrong(check, says, answer):
    verdict = check(answer)
    assert verdict.startswith("Not yet") and says in verdict
