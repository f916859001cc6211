"""Chapter 11 on a tiny model: every mistake is seen and corrected, and the evaluation holds together."""

import math

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 4, "eval_steps": 4, "save_steps": 4, "max_seq_length": 1024}
TINY = {"MODEL": "tiny-smollm", "ROWS": 8, "FEW": 3, "OVERRIDES": STEPS}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    return execute(NOTEBOOKS / "11_evaluation.ipynb", folder, TINY, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)["evaluation"]


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_e11_1_the_metrics_ran_without_a_network(computed):
    assert computed["metric_defaults"] == [0, 0]


def test_e11_2_weighting_by_n_is_wrong_and_one_token_spoils_it(computed, notebook):
    wrong, exact = computed["perplexity"]
    assert math.isfinite(exact) and wrong != pytest.approx(exact, rel=1e-6)
    assert computed["guide_with_one_token"] == "nan" and computed["left_out"] == 1
    assert len(set(computed["windows"].values())) == 1  # every token is scored once, whatever the window
    assert "1 left out" in printed(notebook, "perplexity-nan")


def test_e11_3_the_question_is_whole_and_rows_are_unseen(computed):
    assert computed["asked"] == "Add these.\n\n2 and 3" and computed["seen"] == 0
    assert [len(models) for models in computed["bits"].values()] == [2, 2]
    assert computed["memory"]["trained on"] < 0.1 < 5 < computed["memory"]["new"]


def test_e11_4_draws_differ_and_batches_do_not(computed):
    assert computed["differ"] > 0 and computed["same_in_batches"] == TINY["FEW"]


def test_e11_5_zero_samples_are_refused_on_the_page(notebook):
    assert "num_samples must be above 0" in printed(notebook, "zero")


def test_e11_6_the_harness_keys_hold_a_filter_and_its_verdicts_are_ours(computed):
    assert computed["acc_key"] is None and 0 <= computed["acc"] <= 1
    assert computed["agree"] == computed["facts"] == TINY["ROWS"]


def test_e11_7_errors_are_sorted_by_kind(computed):
    assert computed["errors"] == {"empty": [4], "near miss": [2], "wrong content": [3]}


def test_e11_8_identical_text_scores_full_marks(notebook):
    shown = printed(notebook, "metrics-right")
    assert "ROUGE-L: 1.0" in shown and shown.count("BLEU: 100.0") == 2


def test_e11_10_gemma_ends_its_turn_with_another_token_than_its_eos(computed):
    gemma = computed["stops"]["tiny-gemma3"]
    assert gemma["eos"] == "<eos>" and "<end_of_turn>" in gemma["generation stops at"]


def test_both_models_answered_the_same_rows_and_the_difference_is_theirs(computed):
    assert computed["rows"] == TINY["ROWS"]
    for found in computed["comparison"].values():
        assert found["gain"]["estimate"] == pytest.approx(found["tuned"] - found["base"])
    only_base, only_tuned, _ = computed["mcnemar"]
    before, after = computed["hits"]
    assert after - before == only_tuned - only_base


def test_the_interval_covers_and_many_variants_are_corrected(computed):
    assert 0.93 <= computed["coverage"] <= 0.97
    assert computed["together"] <= 12 < computed["alone"]


def test_forgetting_is_a_number(computed):
    assert computed["forgetting"]["texts"] > 0 and computed["forgetting"]["base"] > 0


def test_the_exercises_wait_and_their_solutions_are_right(notebook, computed):
    for name in ("exercise-code", "exercise-2-code"):
        stub = next(cell for cell in notebook.cells if cell.id == name)
        assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert all(verdict.startswith("Right") for verdict in computed["verdicts"])


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)
