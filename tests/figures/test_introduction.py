import matplotlib as mpl
import pytest

from ftkit.figures.introduction import lifecycle, starts
from ftkit.figures.style import use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_the_life_of_a_model_says_what_it_was_given():
    words = " ".join(text.get_text() for text in lifecycle(2e12, 21_500, 7_300, 134_515_008).axes[0].texts)
    assert all(size in words for size in ("2 T tokens", "21.5 k tokens", "7.3 k\ntrained tokens", "135 M parameters"))


def test_every_start_is_a_line():
    axes = starts({"a": [(0, 2.0), (10, 1.0)], "b": [(0, 2.0), (10, 1.5)]}, "loss").axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines] == [[2, 1], [2, 1.5]]
