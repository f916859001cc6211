"""Chapter 3: the three approaches by what they hold, and the guide's table recomputed."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "03_approaches.ipynb", tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_the_sum_over_the_layers_is_what_the_estimator_trains(computed):
    assert computed["trained_by_hand"] == computed["trained"]["lora"] == computed["trained"]["qlora"] == 828_375_040


def test_e3_1_full_fine_tuning_takes_16_bytes_a_parameter_and_not_4(computed):
    assert computed["static_gb"]["full"] == pytest.approx(1128.9, abs=0.05)
    assert computed["by_hand"]["full"] / 1e9 == pytest.approx(computed["static_gb"]["full"])
    assert computed["static_gb"]["lora"] == pytest.approx(154.4, abs=0.05)


def test_e3_2_qlora_is_nearer_to_the_48_gb_of_the_row_above_than_to_24(computed):
    assert computed["static_gb"]["qlora"] == pytest.approx(47.8, abs=0.05)
    assert computed["quantised_gb"] == pytest.approx(35.3, abs=0.05)
    assert computed["smallest_gb"] > 40


def test_e3_3_embeddings_and_head_are_most_of_what_would_train(computed):
    assert computed["with_embeddings"] == 2_929_721_344


def test_e3_3_a_third_at_most_is_spared_in_operations(computed):
    for kind in computed["flops"].values():
        full, lora, qlora = kind.values()
        assert 2 / 3 - 0.05 < lora / full < 0.8 and lora == qlora


def test_a_trained_number_of_the_small_model_takes_16_bytes(computed):
    for parts in computed["measured"].values():
        assert parts["gradients"] == parts["trainable"] and parts["optimizer"] == 2 * parts["trainable"]
    assert computed["measured"]["full"]["trainable"] == computed["measured"]["full"]["parameters"]


def test_the_exercises_wait_and_their_solutions_are_right(notebook, computed):
    stubs = [cell for cell in notebook.cells if cell.id in ("exercise-code", "exercise2-code")]
    assert all("Not yet" in stub.outputs[0]["data"]["text/plain"] for stub in stubs) and len(stubs) == 2
    assert all(verdict.startswith("Right") for verdict in computed["verdicts"])


def test_the_figure_has_its_own_description(notebook, alts):
    (alt,) = alts(notebook)
    assert "1,128.9 GB" in alt
