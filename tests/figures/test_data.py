"""Figures of data preparation draw the numbers that they are given."""

import matplotlib as mpl
import pytest

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.data.prepared import metadata
from ftkit.figures.data import Step, band_curves, data_pipeline, filling, pipeline_steps, visible
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


def test_the_steps_of_a_prepared_folder_account_for_every_row(tmp_path):
    rows = [{"prompt": f"Say {i} in words.", "completion": "number " + "x" * i} for i in range(3, 43)]
    odd = [{"x": 1}, rows[0], {"prompt": "Again?", "completion": "no " * 300}, {"text": "a b c d e " + "word " * 9}]
    config = DataConfig(model_name="tiny-llama3", near_duplicate_threshold=None, max_seq_length=150)
    DataPreparationPipeline(config, progress=False).run_pipeline([*rows, *odd], tmp_path / "out")
    steps = pipeline_steps(metadata(tmp_path / "out"))
    lost = {step.name: dict(step.dropped) for step in steps if step.dropped}
    assert lost["Read"] == {"unknown format": 1} and lost["Filter"] == {"repetitive": 1}
    assert lost["Deduplicate"] == {"exact duplicate": 1}
    assert (
        sum(steps[-1].parts.values())
        == sum(steps[-2].parts.values())
        == 44 - sum(n for d in lost.values() for n in d.values())
    )


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
