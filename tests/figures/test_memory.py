"""Figures 3, 17, 18 and 19 draw what is computed."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from ftkit.figures.decision import method_flowchart
from ftkit.figures.memory import GROUPS, approaches_overview, memory_comparison, memory_optimisation
from ftkit.figures.practice import curves
from ftkit.figures.style import COLOURS, INK, use_style
from ftkit.memory import estimate, recommend
from ftkit.memory.recommendation import OUTCOMES, RULES


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context({"backend": "agg"}):
        use_style()
        yield
        plt.close("all")


@pytest.fixture(scope="module")
def runs():
    return {method: estimate("llama-3-8b", method=method) for method in ("full", "lora", "qlora")}


def lengths(figure):
    """Where the bars of each row end, in GB, from the top down."""
    ends = {}
    for bar in figure.axes[0].patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        ends[row] = max(ends.get(row, 0), bar.get_x() + bar.get_width())
    return [ends[row] for row in sorted(ends)]


def test_every_component_is_in_one_group(runs):
    members = [member for group in GROUPS.values() for member in group]
    assert sorted(members) == sorted(runs["full"].components)


def test_figure_3_is_as_long_as_what_a_run_holds_before_the_first_token(runs):
    figure = approaches_overview({name: run.components for name, run in runs.items()})
    assert lengths(figure) == pytest.approx([run.static_bytes / 1e9 for run in runs.values()])
    assert figure.axes[0].yaxis_inverted()


@pytest.mark.parametrize("draw", [memory_comparison, memory_optimisation])
def test_figures_17_and_19_are_as_long_as_the_step(draw, runs):
    figure = draw({name: run.components for name, run in runs.items()}, {"80 GB": 80})
    assert lengths(figure) == pytest.approx([run.total_bytes / 1e9 for run in runs.values()])
    assert [line.get_xdata()[0] for line in figure.axes[0].lines] == [80]


def test_figure_18_has_every_question_and_every_outcome_of_the_rules():
    drawn = [text.get_text() for text in method_flowchart(RULES, OUTCOMES).axes[0].texts]
    for text in [question.text for question in RULES.values()] + list(OUTCOMES.values()):
        assert drawn.count(text) == 1
    assert drawn.count("yes") == drawn.count("no") == len(RULES)


def test_figure_18_draws_the_path_that_was_taken_in_colour():
    path = recommend("llama-3-8b", rows=200_000, gpu="RTX 4090", goal="knowledge").path
    texts = method_flowchart(RULES, OUTCOMES, path).axes[0].texts
    answers = [text for text in texts if text.get_text() in ("yes", "no")]
    coloured = [text.get_text() for text in answers if text.get_color() == COLOURS[1]]
    assert sorted(coloured) == sorted("yes" if answer else "no" for _, answer in path)
    assert all(text.get_color() in (COLOURS[1], INK) for text in answers)


def test_curves_are_the_points_and_the_floor():
    figure = curves({"a": [(1, 2.0), (2, 1.0)]}, "step", "loss", floor=0.5)
    line, floor = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[1, 2], [2, 1]] and floor.get_ydata()[0] == 0.5
