"""Chapter 9 on a tiny model: that it runs, and that what it computed is right. Its scores are the book's, not ours."""

import json

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 12, "eval_steps": 6, "save_steps": 6, "max_seq_length": 1024}
TINY = {"MODEL": "tiny-smollm", "TEST_ROWS": 6, "OVERRIDES": STEPS}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    return execute(NOTEBOOKS / "09_lora_in_practice.ipynb", folder, TINY, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_the_layer_from_scratch_is_pefts(computed):
    assert computed["peft_difference"] < 1e-6


def test_e5_2_the_count_is_the_sum_over_both_sides_of_each_layer(computed):
    assert computed["formula"] == computed["trainable"] > 0


def test_the_loss_falls_on_training_and_validation_rows(computed):
    assert computed["losses"][-1] < computed["losses"][0] and len(computed["losses"]) == computed["steps"] == 12
    assert computed["validation_losses"][-1] < computed["losses"][0]


def test_the_adapter_survives_saving_and_merging(computed):
    assert computed["reload_difference"] < 1e-5 and computed["merge_difference"] < 1e-4


def test_three_models_answer_the_same_rows_and_the_gain_is_their_difference(computed):
    base, shown, tuned = computed["exact_match"].values()
    estimate, low, high = computed["gain"]
    assert estimate == pytest.approx(tuned - max(base, shown)) and low <= estimate <= high
    assert computed["test_rows"] == 6


def test_the_page_shows_what_is_trained(notebook):
    shown = printed(notebook, "mask-code")
    answer = json.loads(shown.splitlines()[1].removesuffix("<|im_end|>"))
    assert set(answer) == {"name", "city", "product", "order", "issue", "contact"}
    assert "the last one: ['<|im_end|>']" in shown


def test_the_checkpoint_holds_what_the_next_step_depends_on(computed):
    assert {"optimizer", "scheduler", "random", "step", "run"} <= set(computed["state"])


def test_a_finished_run_is_read_back_and_not_trained_again(computed):
    now, before, steps = computed["resumed"]
    assert now == before and steps == computed["steps"] and computed["same_adapter"]


def test_e9_1_two_arguments_are_unknown(computed):
    for name in ("warmup_ratio", "evaluation_strategy"):
        assert f"unexpected keyword argument '{name}'" in computed["asked"][name]


def test_e9_2_on_a_cpu_half_precision_by_flag_is_an_error(computed):
    assert "bf16" in computed["asked"]["bf16"] and "tf32" in computed["asked"]["tf32"]


def test_e9_3_checkpoints_off_the_evaluations_are_refused(computed):
    assert computed["asked"]["save 200, eval 100"] == "accepted"
    assert "multiple" in computed["asked"]["save 250, eval 100"]


def test_e9_8_one_pair_of_betas_and_not_the_default(computed):
    default, *ours = computed["betas"]
    assert default == [0.9, 0.999] and ours == [[0.9, 0.95]]


def test_every_erratum_of_the_listing_has_its_row(notebook):
    table = next(cell.source for cell in notebook.cells if cell.id == "errata")
    assert [line.split("|")[1].strip() for line in table.splitlines() if "| E9" in line] == [
        f"E9.{i}" for i in range(1, 9)
    ]


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)
