"""Chapter 1 on a tiny model: that it runs, and that what it computed is right."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 4, "eval_steps": 4, "save_steps": 4, "max_seq_length": 1024}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    tiny = {"MODEL": "tiny-smollm", "OVERRIDES": STEPS}
    return execute(NOTEBOOKS / "01_introduction.ipynb", folder, tiny, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)["introduction"]


def test_training_goes_further_from_pretrained_parameters(computed):
    ends = computed["ends"]
    pretrained, random = ([end for name, end in ends.items() if start in name] for start in ("pre-trained", "random"))
    assert min(pretrained) < min(random) and computed["reached_at"] < 100


def test_the_run_trained_a_share_of_the_parameters_on_the_answers_alone(computed):
    assert 0 < computed["trained"] < computed["parameters"]
    assert 0 < computed["answers"] < computed["tokens"]


def test_e0_1_there_is_no_llama_4_8b(computed):
    assert "'llama-4-8b' is not in the catalogue" in computed["no_such_model"]


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")
