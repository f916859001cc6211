"""Chapter 5 at a small size: that it runs, and that what it says about the methods is so. Its sweeps are the book's."""

import contextlib
import io
import json
from statistics import fmean

import nbformat
import pandas as pd
import pytest

import ftkit
from book.execute import execute, results
from book.freshness import NOTEBOOKS, ROOT
from ftkit.methods import conformance, saved_bytes
from ftkit.methods.registry import METHODS

SMALL = {"STEPS": 20, "PRETRAIN": 20, "SEEDS": [0, 1]}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "05_lora_and_variants.ipynb", tmp_path_factory.mktemp("notebook"), SMALL)


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def printed(notebook, cell_id: str) -> str:
    cell = next(cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(out.text for out in cell.outputs if out.get("name") == "stdout")


def test_e5_1_the_guides_shapes_do_not_multiply_and_the_right_ones_do(notebook):
    shown = printed(notebook, "shapes")
    assert "B A: (2, 2)" in shown and "size mismatch" in shown
    assert "A (2, 7)  B (5, 2)" in printed(notebook, "rectangular")


def test_e5_2_two_d_r_is_for_square_weights(notebook):
    assert "trained: 24 = 2 x (7 + 5), not 2dr: 28 or 20" in printed(notebook, "rectangular")


def test_e5_3_a_hundred_million_is_rank_8_not_64(computed):
    assert computed["whole"] == 70_553_706_496
    assert computed["counts"] == {"8": 103_546_880, "64": 828_375_040}


def test_e3_3_embeddings_and_head_would_be_most_of_what_trains(computed):
    assert computed["with_embeddings"] == 2_929_721_344


def test_e5_4_vera_has_its_name(notebook):
    assert any("Vector-based Random Matrix Adaptation" in cell.source for cell in notebook.cells)


def test_e12_1_the_scale_of_rslora_is_said(notebook):
    shown = printed(notebook, "scale-code")
    assert "LoRALinear: alpha 128 at r 64 is a factor 2\n" in shown
    assert "RsLoRALinear: alpha 128 at r 64 is a factor 16\n" in shown and "lora_alpha=16 would keep" in shown


def test_lora_fa_saves_and_the_shared_inputs_undo_it(notebook, computed):
    lora, some, fa = computed["kept"].values()
    assert fa < 0.8 * lora and some == lora
    rows = {line.split()[0]: line.split() for line in printed(notebook, "fa-table-code").splitlines()[1:]}
    assert list(rows) == list(saved_bytes.ROWS)
    assert float(rows["lora-fa"][2]) > float(rows["lora"][1]) > float(rows["lora-fa"][1])


def test_quantising_the_base_saves_no_activations(notebook):
    rows = [line.split() for line in printed(notebook, "fa-table-code").splitlines()[1:]]
    kept = {method: values for method, *values in rows}
    assert kept["qlora"] == kept["lora"]


def test_delta_lora_telescopes_to_rank_2r_and_is_lora_with_the_matched_alpha(computed):
    assert computed["telescope_residual"] < 1e-5 and computed["telescope_rank"] == 4
    assert computed["delta_gap"] < 1e-2 < computed["plain_gap"]


def test_every_sweep_has_a_value_a_seed(computed):
    assert list(computed["by_rank"]) == ["1", "2", "4", "8", "16"]
    values = [*computed["by_rank"].values(), *computed["by_target"].values(), *computed["final"].values()]
    assert all(len(seeds) == 2 and len(set(seeds)) == 2 for seeds in values)
    sizes = computed["target_sizes"].values()
    assert max(sizes) < 1.2 * min(sizes)  # the targets are compared at matched counts


def test_the_two_versions_of_every_method_agree_and_merge(computed):
    assert list(computed["twins"]) == list(METHODS)
    for found in computed["twins"].values():
        assert found["logits"] < 2e-5 and found["gradients"] < 5e-6 and found["merge"] < 2e-5 and found["start"] < 2e-5
    assert computed["merged"] < 2e-5 and computed["unmerged"] < 2e-5


def test_the_conformance_table_is_the_registrys(notebook):
    cell = next(cell for cell in notebook.cells if cell.id == "conformance-code")
    (shown,) = (out["data"]["text/html"] for out in cell.outputs)
    refused = sum(bool(conformance.cell(m, p)) for m in METHODS for p in conformance.PROPERTIES)
    assert shown.count("<td>·</td>") == len(METHODS) * len(conformance.PROPERTIES) - refused
    assert all(f"<th>{name}</th>" in shown for name in (*METHODS, *conformance.PROPERTIES))


def test_adalora_ends_with_the_average_that_was_asked_for(computed):
    assert computed["budget"][0] == 14 * 6 and computed["budget"][-1] == 14 * 4


def test_peft_is_silent_where_ftkit_speaks(notebook, computed):
    missed, wanted = computed["missed"]
    assert missed == wanted == 9
    assert "was asked for and not adapted" in printed(notebook, "silent-check")


def test_the_fair_comparison_is_the_committed_one_and_its_reading_is_so(computed):
    side = json.loads((ROOT / "benchmarks/results/methods.json").read_text())["methods"]
    assert computed["side"] == {name: row["test"] for name, row in side.items()}
    assert fmean(side["lora, alpha x 3"]["test"]) < fmean(side["delta-lora"]["test"])
    assert max(side["dora"]["test"]) > 10 * sorted(side["dora"]["test"])[1]  # one seed far from the others
    assert side["vera"]["rank"] > 64 and min(computed["second"].values()) >= 1
    assert computed["edge"] == [name for name, row in side.items() if row["rate_at_the_edge"]]


def test_the_comparison_is_left_out_with_a_word_where_only_the_package_is(tmp_path, monkeypatch):
    monkeypatch.setattr(ftkit, "__file__", str(tmp_path / "site-packages/ftkit/__init__.py"))
    cells = nbformat.read(NOTEBOOKS / "05_lora_and_variants.ipynb", nbformat.NO_CONVERT).cells
    names = {"pd": pd}
    with contextlib.redirect_stdout(io.StringIO()):
        for cell in cells:
            if cell.id in ("side-read", "side-table", "side-figure", "side-grid"):
                exec(cell.source, names)
    assert "in the repository" in names["missing"] and not names["about"] and not names["side"]["methods"]


def test_the_exercises_wait_and_their_solutions_are_right(notebook, computed):
    for stub in ("exercise-1", "exercise-2"):
        cell = next(cell for cell in notebook.cells if cell.id == stub)
        assert "Not yet" in cell.outputs[0]["data"]["text/plain"]
    assert all(verdict.startswith("Right") for verdict in computed["verdicts"])


def test_every_figure_has_its_own_description(notebook, alts):
    found = alts(notebook)
    assert len(found) == len(set(found)) == 9 and all(len(alt.split()) > 8 for alt in found)
    text = "".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert all(f"**Figure {number}.**" in text for number in range(5, 10))


def test_the_results_are_plain_json(computed):
    assert json.loads(json.dumps(computed)) == computed
