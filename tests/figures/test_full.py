"""The figures of full fine-tuning draw what they are given."""

import matplotlib as mpl
import pytest

from ftkit.figures.full import gradient_flow, share_changed, training_run, two_curves
from ftkit.figures.style import use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def words(figure) -> str:
    return " ".join(text.get_text() for text in figure.axes[0].texts)


def test_figure_4_names_every_block_with_its_parameters_and_gradient():
    shown = words(gradient_flow([("embedding", 1000, 0.5), ("layer 0", 20_000, 0.025)], 3.14159))
    assert all(part in shown for part in ("embedding", "1,000", "0.5", "layer 0", "20,000", "0.025", "loss 3.14"))


def test_figure_13_shows_every_line():
    shown = words(training_run(["a", "b"], ["c"], ["d", "e", "f"]))
    assert "setup, once" in shown and all(f"{line}" in shown.split() for line in "abcdef")


def test_two_curves_are_drawn_over_the_steps():
    lines = {
        line.get_label(): line.get_xydata().tolist() for line in two_curves({"a": [3, 2], "b": [3, 1]}).axes[0].lines
    }
    assert lines == {"a": [[1, 3], [2, 2]], "b": [[1, 3], [2, 1]]}


def test_shares_are_the_lengths_of_the_bars():
    shares = {"wide": {"matrices": 1.0, "norms": 0.9}, "narrow": {"matrices": 0.1, "norms": 0.0}}
    axes = share_changed(shares).axes[0]
    assert [round(bar.get_width(), 3) for bar in axes.patches] == [1.0, 0.9, 0.1, 0.0]
