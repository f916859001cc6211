import matplotlib as mpl
import pytest

from ftkit.figures.style import use_style
from ftkit.figures.why import break_even, weighing


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_both_sides_are_drawn_with_all_that_they_hold():
    words = [text.get_text() for text in weighing(["a gain"], ["a price", "another"]).axes[0].texts]
    assert {"a gain", "a price", "another"} <= set(words)


def test_the_lines_cross_where_it_is_even():
    once, each, point = break_even(training=100.0, saved=4.0, requests=25).axes[0].lines
    slope = (each.get_ydata()[1] - each.get_ydata()[0]) / (each.get_xdata()[1] - each.get_xdata()[0])
    assert slope * point.get_xdata()[0] == pytest.approx(once.get_ydata()[0])
