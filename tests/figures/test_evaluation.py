import matplotlib as mpl
import pytest

from ftkit.evaluation.uncertainty import Interval
from ftkit.figures.evaluation import differences, framework, narrowing
from ftkit.figures.style import use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_figure_16_holds_its_parts_and_its_verdict():
    parts = {"metrics": ["exact match"], "benchmarks": ["facts 0.5", "words 0.2"], "analysis": ["near miss 10%"]}
    words = [text.get_text() for text in framework(80, parts, "better, by 0.2 to 0.4").axes[0].texts]
    assert {"metrics", "words 0.2", "near miss 10%", "better, by 0.2 to 0.4"} <= set(words)
    assert any("80 unseen rows" in word for word in words)


def test_differences_are_drawn_from_low_to_high_and_the_sure_ones_stand_out():
    axes = differences({"a": Interval(0.2, 0.1, 0.3), "b": Interval(0.0, -0.1, 0.1)}, "tuned minus base").axes[0]
    bars = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_linewidth() == 3]
    assert [list(bar.get_xdata()) for bar in bars] == [[0.1, 0.3], [-0.1, 0.1]]
    assert bars[0].get_color() != bars[1].get_color()


def test_the_narrowing_follows_the_intervals():
    axes = narrowing({10: Interval(0.2, -0.1, 0.5), 40: Interval(0.25, 0.1, 0.4)}, "gain").axes[0]
    assert list(axes.lines[0].get_xdata()) == [10, 40] and list(axes.lines[0].get_ydata()) == [0.2, 0.25]
