"""Figures of data preparation draw the numbers that they are given."""

import matplotlib as mpl
import pytest

from ftkit.figures.data import Step, band_curves, data_pipeline, filling, visible
from ftkit.figures.style import use_style
from ftkit.figures.tokens import TokenStrip


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_the_pipeline_s_bars_are_the_rows_and_their_labels_the_counts():
    steps = [
        Step("Read", "any format", {"": 90}, {"not JSON": 10}),
        Step("Split", "by group", {"train": 60, "test": 30}),
    ]
    axes = data_pipeline(steps).axes[0]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == [90, 10, 60, 30, 0]
    said = [text.get_text() for text in axes.texts]
    assert {"1. Read", "90", "− 10 not JSON", "2. Split", "60 train, 30 test"} <= set(said)


def test_curves_and_measured_points_are_drawn_as_given():
    axes = band_curves({"b": ([0, 1], [0, 1])}, ([0.5], [0.25])).axes[0]
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert lines == {"b": [[0, 0], [1, 1]], "measured": [[0.5, 0.25]]}


def test_a_batch_s_bar_is_made_of_its_tokens():
    axes = filling({"padded": (3, 2, 5), "packed": (3, 2, 0)}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [3, 3, 2, 2, 5, 0]
    assert [bar.get_x() for bar in axes.patches] == [0, 0, 3, 3, 5, 5]


def test_the_mask_is_drawn_as_it_is():
    axes = visible([[True, False], [True, True]], ["a", "b"]).axes[0]
    assert axes.images[0].get_array().tolist() == [[True, False], [True, True]]


def test_tokens_are_escaped_and_the_trained_ones_marked():
    page = TokenStrip(["<b>&", " x\n"], [5, 6], [-100, 6])._repr_html_()
    assert "<b>" not in page and "&lt;b&gt;&amp;<br>5<br>-100" in page
    first, second = page.split("<span style=")[1:]
    assert "#b7e4c7" not in first and "#b7e4c7" in second and "␣x⏎<br>6<br>6" in second
