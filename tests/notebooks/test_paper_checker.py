"""The paper checker: every printed count is recomputed on the page, and what differs is said."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS
from ftkit.methods.published import COUNTS


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "paper_checker.ipynb", tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_every_count_comes_out_to_the_unit(computed):
    expected = {f"{row.source} {row.model} {row.method} {row.r}": row.numbers for row in COUNTS}
    assert len(expected) == len(COUNTS) and computed["counts"] == expected


def test_every_source_has_its_table(notebook):
    shown = "".join(
        out["data"].get("text/html", "") for cell in notebook.cells for out in cell.get("outputs", []) if "data" in out
    )
    assert all(f"<th>{row.model}: {row.method}{f', r={row.r}' if row.r else ''}</th>" in shown for row in COUNTS)


def test_what_differs_is_said_with_its_reason(computed):
    assert computed["verdicts"]["differs"] == len(computed["slips"]) == 5


def test_files_are_the_counts_times_four_bytes(computed):
    assert all(abs(given - found) < 0.1 for given, found in computed["files"].values())
