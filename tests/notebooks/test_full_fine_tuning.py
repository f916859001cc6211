"""Chapter 4: that it runs, and that what it shows is so. Its default model is the tiny one: its numbers are tested."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "04_full_fine_tuning.ipynb", tmp_path_factory.mktemp("notebook"), {"STEPS": 6})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_every_parameter_gets_a_gradient(computed):
    assert computed["without_gradient"] == []


def test_e4_1_adamw_from_scratch_is_torchs_and_not_sgd(notebook, computed):
    assert computed["adamw_difference"] < 1e-5
    shown = next(cell for cell in notebook.cells if cell.id == "sgd-code").outputs[0]["text"].splitlines()
    moves = [[float(x) for x in line.split("[")[1].strip("])").split(",")] for line in shown]
    sgd, adamw, sgd_scaled, adamw_scaled = moves
    assert sgd_scaled == pytest.approx([1000 * x for x in sgd]) and adamw_scaled == pytest.approx(adamw, rel=1e-3)


def test_sixteen_bytes_a_parameter_predicted_and_measured(computed):
    assert computed["bytes"] == {"float32": pytest.approx(16), "mixed": pytest.approx(16)}
    assert computed["measured"] == {"parameters": 4, "gradients": 4, "optimizer": 8}


def test_the_trainers_losses_are_the_bare_loops_step_for_step(computed):
    assert computed["trainer"] == pytest.approx(computed["bare"], abs=1e-4) and len(computed["bare"]) == 6
    assert computed["bare"][-1] < computed["bare"][0]


def test_e8_3_bf16_weights_without_a_master_copy_stop_moving(computed):
    wide, narrow = computed["changed"]["float32"], computed["changed"]["bfloat16"]
    assert wide["norms"] == 1 and wide["matrices"] > 0.99
    assert narrow["norms"] == 0 and narrow["matrices"] < 0.3


def test_e8_2_the_guides_patterns_exclude_no_norm_and_the_shape_excludes_all(computed):
    assert computed["norms"] == 5 and computed["excluded_by_the_guide"] == 0 and computed["norms_left_out"]


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)
