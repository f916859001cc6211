"""Chapter 10 on a tiny model: that it runs, and that what it computed is right. Its scores are the book's, not ours."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS

STEPS = {"max_steps": 12, "eval_steps": 6, "save_steps": 6, "max_seq_length": 1024}
TINY = {"MODEL": "tiny-smollm", "TEST_ROWS": 6, "MERGE_PROMPTS": 3, "OVERRIDES": STEPS}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    folder = tmp_path_factory.mktemp("notebook")
    return execute(NOTEBOOKS / "10_qlora_in_practice.ipynb", folder, TINY, env={"FTKIT_CACHE": str(folder / "cache")})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_the_recipe_differs_from_loras_by_four_bits_alone(computed):
    names = {"load_in_4bit", "bnb_4bit_compute_dtype", "bnb_4bit_quant_type", "bnb_4bit_use_double_quant", "optim"}
    assert set(computed["settings"]) == names


def test_the_share_in_four_bits_by_number_and_by_bytes(computed):
    packed, wide = computed["held"]
    assert computed["share"]["bytes"] == pytest.approx(packed / (packed + wide))
    # tiny models are float32: 32 bits a wide number against a little more than 4
    numbers = computed["share"]["numbers"]
    assert packed / wide == pytest.approx(numbers / (1 - numbers) * 4.2 / 32, rel=0.1) and numbers > 0.7


def test_the_loss_falls(computed):
    assert computed["losses"][-1] < computed["losses"][0] and len(computed["losses"]) == computed["steps"] == 12
    assert computed["validation"]["QLoRA"] < computed["losses"][0]


def test_e10_5_four_bits_and_the_paged_optimizer_run_on_a_cpu(computed):
    kind, device, states = computed["optimizer"]
    assert (kind, device) == ("PagedAdamW8bit", "cpu") and states > 0


def test_both_models_answer_the_same_rows_and_the_gain_is_their_difference(computed):
    lora, qlora = computed["exact_match"].values()
    estimate, low, high = computed["gain"]
    assert estimate == pytest.approx(qlora - lora) and low <= estimate <= high


def test_e10_3_the_merge_onto_the_dequantised_base_is_the_exact_one(computed, notebook):
    merges = computed["merges"]
    assert list(merges) == ["dequantized", "original", "requantized"]
    assert merges["dequantized"]["max_logit"] < 1e-4 and merges["dequantized"]["answers"] == 0
    assert min(merges["original"]["max_logit"], merges["requantized"]["max_logit"]) > 1e-3
    assert computed["reload_difference"] < 1e-5
    card = printed(notebook, "card-code")
    assert "# Merged model: tiny-smollm" in card and "| original |" in card and "in 4 bits (nf4" in card


def test_the_commands_run(computed, notebook):
    assert computed["codes"] == [0, 0]
    assert "ftkit train qlora --model-name tiny-llama3" in printed(notebook, "commands-data")
    assert "* dequantized" in printed(notebook, "commands-merge")


def test_e10_1_switched_off_is_off(computed):
    assert computed["switched_off"]["ftkit"] == 0 < 0.5 < computed["switched_off"]["guide"]


def test_e10_2_what_is_wide_is_not_widened_and_the_adapter_is_float32(computed):
    before, after = computed["widened"]
    assert after == 2 * before and computed["precisions"] == ["torch.float32"]
    ours, widened, trained = computed["widened_gb"].values()
    # 2.1 billion numbers of embeddings and head: from 2 bytes to 4, then copies, their gradients and states
    assert widened - ours == pytest.approx(2.1012 * 2, rel=1e-2) and trained - widened > 2.1 * 8


def test_e10_4_the_guides_estimate_is_the_same_for_most_names(computed):
    guide = {name: round(pair[0], 2) for name, pair in computed["estimates"].items()}
    assert guide["llama-3-70b"] == 32.98 and guide["llama-3-8b"] == 3.88
    assert {guide[n] for n in ("qwen3-0.6b", "qwen3-14b", "gemma-3-27b", "llama-3.1-405b", "deepseek-v3")} == {3.41}
    shapes = [pair[1] for pair in computed["estimates"].values()]
    assert len(set(shapes)) == len(shapes) == 8


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)


def test_what_was_not_run_is_marked(notebook):
    cell = next(cell for cell in notebook.cells if cell.id == "gguf")
    assert "not run here" in cell.source and "convert_hf_to_gguf.py" in cell.source
