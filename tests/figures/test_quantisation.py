"""The pictures of QLoRA show what they are given."""

import matplotlib as mpl
import pytest

from ftkit.figures.quantisation import code_books, memory_distribution, qlora_layer, qlora_setup
from ftkit.figures.style import COLOURS, use_style


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        mpl.pyplot.close("all")


def words(figure) -> str:
    return " | ".join(text.get_text() for text in figure.axes[0].texts)


def test_every_value_of_a_code_is_a_mark_in_its_row():
    top, bottom = code_books({"a": [-1, 0, 1], "b": [0, 0.5]}, [0.1, 0.1, 0.9]).axes
    assert [line.get_xydata().tolist() for line in bottom.lines] == [[[-1, 0], [0, 0], [1, 0]], [[0, 1], [0.5, 1]]]
    assert [tick.get_text() for tick in bottom.get_yticklabels()] == ["a", "b"]
    assert sum(bar.get_height() for bar in top.patches) == 3


def test_figure_10_has_a_frozen_weight_in_4_bits_and_two_that_train():
    shown = words(qlora_layer(100, 200, 8, 10_300_000, 9_600))
    assert "W  100 × 200\n4 bits: 10 MB" in shown and "0.0096 MB" in shown
    assert "A  8 × 200" in shown and "B  100 × 8" in shown and "A and B alone" in shown


def test_figure_11_bars_are_the_components_and_their_shares():
    axes = memory_distribution({"quantized_weights": 30.0, "optimizer": 10.0}).axes[0]
    assert [bar.get_width() for bar in axes.patches] == [30.0, 10.0]
    assert [text.get_text() for text in axes.texts] == ["30.0 GB, 75%", "10.0 GB, 25%"]
    assert [mpl.colors.to_hex(bar.get_facecolor()) for bar in axes.patches] == list(COLOURS[:2])


def test_figure_15_adds_up():
    shown = words(qlora_setup(200_000_000, 50_000_000, 30_000_000, 5_000_000, 3_000_000))
    assert "200 MB" in shown and "4 bits: 50 MB\nwide: 30 MB" in shown
    assert "held before the first row:\n93 MB" in shown  # gradients take as much as the adapters
