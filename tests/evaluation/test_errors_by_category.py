"""Every category has its answer, right answers are none, and unequal lists are refused."""

import pytest

from ftkit.errors import DataError
from ftkit.evaluation.errors_by_category import CATEGORIES, analyse, category, is_repeated

JSON = '{"name": "Ann", "city": "Rome", "order": "A-1"}'
LONG = "The ship left the harbour at noon and came back on the next morning with all hands."

CASES = [
    ("empty", " \n", "Paris", True),
    ("repeated", "so I went to the shop, to the shop, to the shop, to th", "Paris", False),
    ("never stopped", "Well, there are many cities, and among the larger", "Paris", False),
    ("wrong format", "name: Ann, city: Rome", JSON, True),
    ("wrong format", '{"name": "Ann", "city": "Rome"}', JSON, True),
    ("near miss", '{"name": "Ann", "city": "Roma", "order": "A-1"}', JSON, True),
    ("wrong content", '{"name": "Bob", "city": "Roma", "order": "A-1"}', JSON, True),
    ("near miss", LONG.replace("noon", "night"), LONG, True),
    ("too long", "London, the capital of the United Kingdom", "Paris", True),
    ("too short", "A ship.", LONG, True),
    ("wrong content", "Berlin", "Paris", True),
]


@pytest.mark.parametrize(("name", "prediction", "reference", "stopped"), CASES)
def test_every_category(name, prediction, reference, stopped):
    assert category(prediction, reference, stopped=stopped) == name


def test_every_category_has_a_case():
    assert {name for name, *_ in CASES} == set(CATEGORIES)


def test_e11_7_a_full_stop_is_no_error_and_a_sentence_around_the_answer_a_near_miss():
    predictions = ["Paris.", "paris", "The answer is Paris", "Lyon"]
    found = analyse(["Capital of France?"] * 4, predictions, ["Paris"] * 4)
    assert found.errors == {"near miss": [2], "wrong content": [3]}
    assert found.rates == {"near miss": 0.25, "wrong content": 0.25}
    assert found.as_dict()["error_rate"] == 0.5


def test_e11_7_unequal_lengths_are_an_error():
    with pytest.raises(DataError, match="2 prompts, 1 predictions, 2 references"):
        analyse(["a", "b"], ["a"], ["a", "b"])
    with pytest.raises(DataError, match="1 right"):
        analyse(["a", "b"], ["a", "b"], ["a", "b"], right=[1])
    with pytest.raises(DataError, match="no answers"):
        analyse([], [], [])


def test_the_users_own_categoriser_sees_the_wrong_answers_alone():
    seen = []

    def by_prompt(prompt, prediction, reference):
        seen.append((prompt, prediction, reference))
        return f"about {prompt}"

    found = analyse(["x", "y", "y"], ["1", "2", "4"], ["1", "3", "5"], categorize_fn=by_prompt)
    assert found.errors == {"about y": [1, 2]} and seen == [("y", "2", "3"), ("y", "4", "5")]


def test_a_score_decides_what_is_right_where_one_is_given():
    found = analyse(["p"] * 2, ["a", "b"], ["a", "a"], right=[0, 1])
    assert sum(map(len, found.errors.values())) == 1 and found.examples["near miss"][0]["row"] == 0


def test_examples_are_the_first_few_and_uncut():
    long = "z" * 1000 + "ab"
    found = analyse(["p" * 500] * 5, [long] * 5, ["a"] * 5, examples=2)
    (kept,) = found.examples.values()
    assert [example["row"] for example in kept] == [0, 1] and kept[0]["prediction"] == long


@pytest.mark.parametrize("text", ["ha ha ha", "1000", "aaaa", "a b a b", "2024-01-01", "xyz xyz xyz"])
def test_short_repetitions_are_ordinary_text(text):
    assert not is_repeated(text)


@pytest.mark.parametrize("unit", ["a", "No. ", "one two three, ", "ok\n"])
def test_repetitions_are_found_wherever_the_cut_falls(unit):
    text = "It began well. " + unit * 16
    assert all(is_repeated(text[: len(text) - cut]) for cut in range(len(unit)))
