"""Figures are legible on any page and draw what they are given."""

import matplotlib as mpl
import pytest

from ftkit.evaluation.uncertainty import wilson
from ftkit.figures.results import loss_curve, scores
from ftkit.figures.style import INK, use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def test_the_background_is_transparent_and_the_ink_is_legible_on_white_and_black():
    figure = loss_curve([{"step": 1, "loss": 2.0}])
    assert figure.get_facecolor()[3] == 0 and figure.axes[0].get_facecolor()[3] == 0

    def luminance(colour):
        channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in mpl.colors.to_rgb(colour)]
        return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), channels, strict=True))

    ink = luminance(INK)
    # WCAG asks for a contrast of 3 for graphics, on white and on the theme's dark background
    assert (1 + 0.05) / (ink + 0.05) >= 3 and (ink + 0.05) / (luminance("#121212") + 0.05) >= 3


def test_the_loss_curve_draws_both_losses_at_their_steps():
    history = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "eval_loss": 1.5}, {"step": 2, "x": 1}]
    lines = {line.get_label(): line.get_xydata().tolist() for line in loss_curve(history).axes[0].lines}
    assert lines == {"training": [[1, 2], [2, 1]], "validation": [[2, 1.5]]}


def test_the_bars_are_the_scores_from_the_top_down():
    axes = scores({"a": wilson(1, 4), "b": wilson(3, 4)}, "share").axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.25, 0.75]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["a", "b"] and axes.yaxis_inverted()
