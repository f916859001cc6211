"""The pictures of adapters and of sweeps show what they are given."""

import matplotlib as mpl
import pytest

from ftkit.figures import adapters
from ftkit.figures.style import use_style
from ftkit.figures.sweeps import seeds, sweep


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def texts(figure):
    return " | ".join(text.get_text() for text in figure.axes[0].texts)


def test_e5_1_the_shapes_that_are_written_are_a_r_by_d_in_and_b_d_out_by_r():
    for figure in (adapters.lora(5, 7, 2), adapters.lora_fa(5, 7, 2)):
        assert "W  5 × 7" in texts(figure) and "A  2 × 7" in texts(figure) and "B  5 × 2" in texts(figure)


def test_lora_fa_says_what_is_kept_of_a_token():
    assert "kept: A x,\n2 numbers" in texts(adapters.lora_fa(5, 7, 2)) and "7 numbers" in texts(
        adapters.lora_fa(5, 7, 2)
    )


def test_vera_shares_its_pair_and_trains_two_vectors_a_layer():
    shown = texts(adapters.vera(5, 7, 3, layers=9))
    assert shown.count("random, shared") == 2 and "layer 9" in shown
    assert shown.count("d  3 numbers") == shown.count("b  5 numbers") == 3


def test_the_curves_are_the_values():
    lines = adapters.delta_lora([0, 1, 2], [0, 0, 3], [0, 1, 2], start=1).axes[0].lines
    assert [list(line.get_ydata()) for line in lines[:2]] == [[0, 1, 2], [0, 0, 3]]
    lines = adapters.lora_plus([(1, 16), (2, 32)]).axes[0].lines
    assert {line.get_label(): list(line.get_ydata()) for line in lines} == {"rate of A": [1, 2], "rate of B": [16, 32]}


def test_every_seed_is_a_point_and_the_line_goes_through_the_means():
    lines = sweep({"a": {1: [1.0, 3.0], 4: [0.5, 0.7]}}, "rank", "loss").axes[0].lines
    assert list(lines[0].get_ydata()) == [2.0, 0.6]
    assert [list(line.get_ydata()) for line in lines[1:]] == [[1.0, 3.0], [0.5, 0.7]]
    axes = seeds({"all": [1.0, 3.0]}, "loss").axes[0]
    assert list(axes.lines[0].get_xdata()) == [1.0, 3.0] and list(axes.lines[1].get_xdata()) == [2.0]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["all"]
