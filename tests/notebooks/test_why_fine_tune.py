"""Chapter 2 on a tiny model: that it runs, and that what it computed is right."""

import math

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 4, "eval_steps": 4, "save_steps": 4, "max_seq_length": 1024}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    tiny = {"MODEL": "tiny-smollm", "ROWS": 5, "OVERRIDES": STEPS}
    return execute(NOTEBOOKS / "02_why_fine_tune.ipynb", folder, tiny, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)["why"]


def test_three_ways_of_asking_are_scored_on_the_same_rows(computed):
    assert len(computed["exact_match"]) == 3
    assert all(0 <= share <= 1 for share in [*computed["exact_match"].values(), *computed["same"].values()])


def test_the_example_makes_the_prompt_longer_and_the_crossing_follows_from_it(computed):
    short, long = computed["lengths"]["instruction"], computed["lengths"]["instruction and example"]
    assert long > short and computed["requests"] == math.ceil(2 * computed["tokens"] / (long - short))


def test_the_merged_model_is_timed_too_and_is_of_the_base_s_size(computed):
    numbers, times = computed["numbers"], computed["times"]
    assert numbers["merged"] == numbers["base"] < numbers["tuned"]
    assert len(times) == 3 and all(len(t) == 5 and 0 < t[0] <= t[2] <= t[4] for t in times.values())


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")
