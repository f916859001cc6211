"""Figure 18: the choice of a method, drawn from the table of questions that makes it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from ftkit.figures.diagram import LETTERS, Box, arrow, box, canvas
from ftkit.figures.style import COLOURS, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class Question(Protocol):
    """A question, and the names of what follows it."""

    text: str
    yes: str
    no: str


HEIGHT, GAP = 2.2, 2.0


def method_flowchart(
    questions: Mapping[str, Question], outcomes: Mapping[str, str], path: Sequence[tuple[str, bool]] = ()
) -> "Figure":
    """Questions from the top down, each with its two ways on; outcomes stand to the right or below.

    Args:
        questions: by name, in an order in which every answer leads further down; the first is where to start.
        outcomes: names that are no questions, and what the box says.
        path: questions that were asked with their answers, drawn in colour.
    """
    order = list(questions)
    figure, axes = canvas(54, (HEIGHT + GAP) * (len(order) + 1) - GAP + 1)
    taken = {(name, questions[name].yes if answer else questions[name].no) for name, answer in path}
    reached = {end for edge in taken for end in edge}
    boxes = {}
    for row, name in enumerate(order):
        y = (HEIGHT + GAP) * (len(order) - row) + 0.5
        colour = COLOURS[0] if name in reached or not path else INK
        boxes[name] = box(axes, (9, y), (27, HEIGHT), questions[name].text, colour)
    for row, name in enumerate(order):
        for target in (questions[name].yes, questions[name].no):
            if target not in outcomes or target in boxes:
                continue
            below = target == questions[name].no and row == len(order) - 1
            at = (9, 0.5) if below else (42, boxes[name].y)
            size = (27, HEIGHT) if below else (11, HEIGHT)
            colour = COLOURS[2] if target in reached or not path else INK
            boxes[target] = box(axes, at, size, outcomes[target], colour, bold=True)
    for name in order:
        for answer, target in (("yes", questions[name].yes), ("no", questions[name].no)):
            colour = COLOURS[1] if (name, target) in taken else INK
            if target in questions and order.index(target) > order.index(name) + 1:
                _around(axes, boxes[name], boxes[target], answer, colour, order.index(target) - order.index(name))
            else:
                arrow(axes, boxes[name], boxes[target], answer, colour=colour)
    return figure


def _around(axes: "Axes", start: Box, end: Box, text: str, colour: str, rows: int) -> None:
    """An arrow that passes the questions between on their left, the further the more of them there are."""
    x, y0, y1 = start.x - 2.6 * (rows - 1), start.y + start.height / 2, end.y + end.height * (0.95 - 0.2 * rows)
    axes.plot([start.x, x, x], [y0, y0, y1], color=colour, linewidth=1.3)
    axes.annotate("", xy=(end.x, y1), xytext=(x, y1), arrowprops={"arrowstyle": "-|>", "color": colour, "shrinkA": 0})
    axes.text(start.x - 0.5, y0 + 0.2, text, ha="right", va="bottom", color=colour, size=LETTERS)
