"""Chapter 8 on a tiny model: that it runs, and that what it computed is right. Its scores are the book's, not ours."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 8, "eval_steps": 4, "save_steps": 4, "max_seq_length": 1024}
TINY = {"MODEL": "tiny-smollm", "TEST_ROWS": 4, "OVERRIDES": STEPS}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    path = NOTEBOOKS / "08_full_fine_tuning_in_practice.ipynb"
    return execute(path, folder, TINY, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_the_loss_falls_and_every_weight_trains(computed):
    assert computed["losses"][-1] < computed["losses"][0] and len(computed["losses"]) == computed["steps"] == 8
    assert computed["optimizer_bytes"] == 8 * computed["trainable"]


def test_e8_1_the_guides_evaluation_is_the_loss_times_the_batch_size(computed):
    right = {right for _, _, right in computed["evaluations"]}
    assert max(right) - min(right) < 1e-5
    for size, guide, true in computed["evaluations"]:
        assert guide == pytest.approx(size * true, rel=0.01)


def test_e8_4_flash_attention_is_a_wish_not_a_demand(notebook):
    shown = next(cell for cell in notebook.cells if cell.id == "flash-code").outputs[0]["text"].splitlines()
    assert "sdpa" in shown[0] and "sdpa" in shown[1] and "flash_attention_2" in shown[2]


def test_e8_6_the_mean_of_means_is_another_gradient(computed):
    assert computed["accumulation_error"] > 0.1


def test_e8_7_a_killed_run_is_resumed_to_the_bit(computed):
    assert computed["killed"] == -9 and computed["codes"] == [0, 0]
    assert computed["same_weights"] and computed["same_logs"]


def test_e8_9_the_seed_reaches_every_generator(computed):
    assert computed["seeds_repeat"]


def test_both_methods_answer_the_same_rows_and_the_gain_is_their_difference(computed):
    full, lora = computed["exact_match"]["full"], computed["exact_match"]["LoRA"]
    estimate, low, high = computed["gain"]
    assert estimate == pytest.approx(full - lora) and low <= estimate <= high
    assert computed["saved_mb"]["full"] > computed["saved_mb"]["LoRA"]


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)
