import matplotlib as mpl
import pytest

from ftkit.evaluation.uncertainty import wilson
from ftkit.figures.conclusion import runs_beside
from ftkit.figures.style import use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_points_and_bars_end_at_the_numbers_and_a_run_keeps_its_colour():
    panels = {"numbers": {"full": 1e8, "LoRA": 1e6}, "loss": {"LoRA": 0.3, "full": 0.2}}
    first, second = runs_beside(panels, logarithmic=["numbers"]).axes[:2]
    assert first.get_xscale() == "log" and second.get_xscale() == "linear"
    assert [line.get_xdata()[0] for line in first.lines] == [1e8, 1e6]
    assert [bar.get_width() for bar in second.patches] == [0.3, 0.2]
    colours = [mpl.colors.to_rgb(line.get_color()) for line in first.lines]
    assert colours == [bar.get_facecolor()[:3] for bar in reversed(second.patches)]


def test_a_share_has_its_interval_and_the_whole_axis():
    axes = runs_beside({"exact": {"LoRA": wilson(12, 24)}}).axes[0]
    (bars,) = axes.collections
    (segment,) = bars.get_segments()
    interval = wilson(12, 24)
    assert segment[:, 0] == pytest.approx([interval.low, interval.high]) and axes.get_xlim() == (0, 1)


def test_a_place_without_a_panel_is_empty():
    *_, last = runs_beside({name: {"LoRA": 1.0} for name in "abc"}).axes
    assert not last.axison
