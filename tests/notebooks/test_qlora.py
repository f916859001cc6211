"""Chapter 6 on a tiny model: that it runs, and that what it says of four bits is so."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "06_qlora.ipynb", tmp_path_factory.mktemp("notebook"), {"WEIGHTS": "tiny-llama3"})


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_values_bytes_scales_and_scales_of_scales_are_bitsandbytes(computed):
    assert computed["same"] == [True] * 4


def test_one_large_weight_ruins_its_block(notebook):
    weights, one, two = (line.split(":")[1].split() for line in printed(notebook, "blocks-code").splitlines())
    assert [abs(float(v)) for v in one] == [0, 0, 0, 0, 0, 0, 8, 0] and weights[0] == two[0] == "0.30"


def test_e6_1_nf4_errs_less_than_fp4_on_normal_weights_and_is_not_optimal(computed):
    normal, uniform = computed["errors"]["normal"], computed["errors"]["uniform"]
    assert normal["NF4"] < normal["INT4"] < normal["FP4"] and uniform["INT4"] < uniform["NF4"]
    assert all(found["NF4"] < found["FP4"] for found in computed["real_errors"].values())
    assert len(computed["real_errors"]) == 7
    start, _, end = computed["moved"].values()
    assert start == normal["NF4"] and end < start  # other values do better on the weights it was made for
    assert computed["entropy"] == pytest.approx(3.88, abs=0.01)


def test_double_quantisation_saves_0_373_bits(computed):
    assert list(computed["bits"].values()) == pytest.approx([4.5, 4.127], abs=5e-4)
    assert computed["saved"] == 0.373046875 and computed["bits_bitsandbytes"] == computed["bits"]["double"]
    single, double = computed["double_error"]
    assert 0 < double - single < 1e-3


def test_the_layer_from_scratch_is_the_one_that_trains(computed):
    assert len(computed["twins"]) == 3 and max(computed["twins"].values()) < 1e-5
    assert computed["largest_kept"] == 4 * 1024


def test_states_in_eight_bits_are_a_quarter(computed):
    assert list(computed["optimizer_bytes"].values()) == pytest.approx([8, 2 + 2 * 4 / 256])


def test_e3_2_the_weights_of_a_70b_model_alone_are_more_than_24_gb(computed):
    assert 35 < computed["quantized_gb"] < 36 and computed["static_gb"] > 40


def test_experts_are_left_wide_by_the_library_and_not_here(computed, notebook):
    assert computed["shares"]["Transformers alone"] < 0.35 < 0.55 < computed["shares"]["ftkit"]
    assert "experts.gate_up_proj" in printed(notebook, "moe-ours")
    for found in computed["moe_gb"].values():
        assert 3 < found["experts left wide"] / found["experts in 4 bits"] < 4


def test_the_exercise_waits_and_its_solution_is_right(notebook, computed):
    stub = next(cell for cell in notebook.cells if cell.id == "exercise-code")
    assert "Not yet" in stub.outputs[0]["data"]["text/plain"]
    assert computed["verdict"].startswith("Right")


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 3 and all(len(alt.split()) > 8 for alt in found)
