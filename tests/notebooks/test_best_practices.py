"""Chapter 12: each fault shows its symptom, and each cure cures, where it is said to."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "12_best_practices.ipynb", tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_clean_rows_beat_more_rows(computed):
    few, many, noisy = computed["quality"].values()
    assert computed["best"] < many < few < noisy


def test_e12_1_the_same_rank_and_alpha_make_two_scales(computed):
    assert computed["scales"] == [2, 16]


def test_lora_wants_a_higher_learning_rate(computed):
    rates = [float(lr) for lr in computed["sweep"]]
    full, lora = (min(rates, key=lambda lr: computed["sweep"][f"{lr:g}"][m]) for m in ("full", "LoRA r=16"))
    assert lora >= full
    first = computed["sweep"][f"{rates[0]:g}"]
    assert first["LoRA r=16"] > first["full"] + 0.1


def test_each_measure_saves_memory(computed):
    totals = list(computed["totals_gb"].values())
    assert totals == sorted(totals, reverse=True)
    kept = computed["kept_mb"]
    assert kept["dropout 0.1"] > 1.3 * kept["plain"] > kept["plain"] > kept["bfloat16"]
    assert kept["2 rows"] == pytest.approx(kept["plain"] / 2, rel=0.05)


def test_overfitting_is_stopped_or_fed(computed):
    to_the_end, stopped, more = computed["overfitting"]
    assert computed["overfitting_training"] < 0.5 * to_the_end
    assert more < stopped < to_the_end - 0.2


def test_replay_keeps_what_the_others_forget(computed):
    before, alone, slow, lora, replay = computed["forgotten"].values()
    assert alone[0] > 2 * before[0]
    assert 1.5 * before[0] < min(slow[0], lora[0]) and max(slow[0], lora[0]) < alone[0]
    assert replay[0] < before[0] + 0.1 and replay[1] < before[1] / 2


def test_clipping_saves_what_explodes(computed):
    assert computed["exploded"]["not clipped"] == "nan" and float(computed["exploded"]["clipped at 1"]) < 2


def test_e12_2_sampling_hides_mode_collapse_and_does_not_mend_it(computed):
    stuck, warm, hot, clean = computed["collapse"].values()
    assert stuck[0] > 0.8 and hot[0] < warm[0] < stuck[0]
    assert stuck[2] == warm[2] == hot[2] > clean[2]  # no weight changed
    assert max(warm[1], hot[1]) < 3 * clean[1] and clean[0] < 0.2


def test_a_low_learning_rate_stalls(computed):
    lowest, middle, highest = computed["slow"].values()
    assert lowest > 2 * middle > middle > highest


def test_e12_3_each_figure_stands_under_its_own_heading(notebook, alts):
    ids = [cell.id for cell in notebook.cells]
    assert ids.index("memory") < ids.index("figure17") < ids.index("strategies") < ids.index("figure19")
    assert ids.index("figure19") < ids.index("pitfalls")
    assert len(set(alts(notebook))) == 4


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")
