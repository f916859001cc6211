"""The page of predicted beside measured memory keeps its promises."""

import pytest

from book.execute import execute, results
from book.freshness import NOTEBOOKS
from ftkit.memory.comparison import DENSE, MIXED


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    return execute(NOTEBOOKS / "memory_measured.ipynb", tmp_path_factory.mktemp("notebook"))


@pytest.fixture(scope="module")
def computed(notebook):
    return results(notebook)


def test_what_does_not_depend_on_the_batch_is_exact(computed):
    assert len(computed["exact"]) == 2 * len(DENSE + MIXED)
    assert {value for row in computed["exact"].values() for value in row.values()} == {0}


def test_what_is_saved_is_within_5_percent_or_within_the_bounds(computed):
    for name, (low, high, measured) in computed["saved"].items():
        if name.startswith(MIXED):
            assert low <= measured <= high <= 1.5 * low, name
        else:
            assert 0.95 * measured <= low <= high <= 1.05 * measured, name


def test_the_peak_is_within_the_bounds(computed):
    assert all(low <= measured <= high for low, high, measured in computed["peak"].values())
