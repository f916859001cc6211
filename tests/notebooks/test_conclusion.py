"""Chapter 14 on a tiny model: that it runs, and that what it computed is right."""

import math

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 6, "eval_steps": 3, "save_steps": 6, "max_seq_length": 1024}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    tiny = {"MODEL": "tiny-smollm", "ROWS": 3, "STEPS": 3, "OVERRIDES": STEPS}
    return execute(NOTEBOOKS / "14_conclusion.ipynb", folder, tiny, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)["conclusion"]


def test_each_run_is_counted_in_its_own_file(computed):
    trained, sizes = computed["trained"], computed["sizes"]
    assert list(trained) == ["full", "LoRA", "QLoRA"]
    assert 0 < trained["LoRA"] == trained["QLoRA"] < trained["full"]
    for name, numbers in trained.items():  # float32, and a header
        assert 4 * numbers < sizes[name] < 4 * numbers + 50_000
        assert computed["parts"][name]["steps"] == 6 and 0 <= computed["exact_match"][name] <= 1


def test_the_less_a_method_approximates_the_more_memory_it_takes(computed):
    for sizes in computed["predicted"].values():
        assert sizes["full"] > sizes["lora"] > sizes["qlora"]


def test_e14_1_lora_plus_adds_a_ratio_and_lowers_the_rate_of_a(computed):
    lora, plus = computed["rates"]["lora"], computed["rates"]["lora+"]
    assert len(set(lora)) == 1 and len(set(plus)) == 3
    assert plus[0] < lora[0] < plus[1]


def test_training_and_validation_of_each_run_are_watched(computed):
    watched = {f"{name}, {part}" for name in ("full", "LoRA", "QLoRA") for part in ("training", "validation")}
    assert computed["watched"] == sorted(watched)


def test_the_runs_differ_only_where_the_page_says(computed):
    full, lora, qlora = (computed["configs"][name] for name in ("full", "LoRA", "QLoRA"))
    assert {field for field in lora if lora[field] != qlora[field]} == {"load_in_4bit", "optim"}
    steps = ("max_steps", "batch_size", "gradient_accumulation_steps")
    assert all(full[field] == lora[field] for field in steps)
    assert float(full["learning_rate"]) < float(lora["learning_rate"])


def test_a_merge_is_exact_on_the_weights_that_were_trained_beside(computed):
    errors = computed["merges"]
    assert errors["LoRA, summed in float32"] == errors["QLoRA, onto the dequantised base"] == 0
    assert 0 < errors["LoRA, rounded to bfloat16"] < errors["QLoRA, onto the original base"]
    assert errors["QLoRA, quantised again"] > 0


def test_a_run_is_not_resumed_with_other_settings(computed):
    assert "max_steps=6, not max_steps=12" in computed["refused"]


def test_going_on_lowers_the_loss_of_the_new_rows(computed):
    before, *grown = computed["after"].values()
    assert len(grown) == 2 and all(after["new"] < before["new"] for after in grown)


def test_dpo_starts_at_log_2(computed):
    assert computed["at_start"] == pytest.approx(math.log(2))


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_the_figure_has_its_own_description(notebook, alts):
    (alt,) = alts(notebook)
    assert all(f"{name}: " in alt for name in ("full", "LoRA", "QLoRA"))
