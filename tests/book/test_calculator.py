"""The calculator page: its numbers are Python's; it answers what is chosen, from the disk and on a phone too."""

import json

import pytest

from book.browser import HTML, open_page
from book.freshness import ROOT

CASES = json.loads((ROOT / "tests/memory/calculator_cases.json").read_text())
PAGE = "book/calculator.html"


@pytest.fixture(params=["served", "from the disk"])
def view(request, windows, site):
    view = open_page(windows["light"], site if request.param == "served" else HTML.as_uri() + "/", PAGE)
    yield view
    view.page.close()
    assert not view.problems


def test_the_numbers_are_pythons(view):
    found = view.page.evaluate(
        "cases => cases.map(c => ftkitEstimate(FTKIT_CATALOGUE.models[c.model], c.settings))", CASES
    )
    for case, answer in zip(CASES, found, strict=True):
        assert {name: answer[name] for name in case["expected"]} == case["expected"], (case["model"], case["settings"])


def test_it_answers_what_is_chosen(view):
    page = view.page
    answer = page.locator("#calculator-answer")
    page.select_option("[name=model]", "llama-3-70b")
    page.select_option("[name=gpu]", "RTX 4090")
    assert answer.inner_text().startswith("It does not fit on one RTX 4090")
    assert "828,375,040 of 70,553,706,496 parameters train" in answer.inner_text()
    page.select_option("[name=gpu]", "H200")
    assert answer.inner_text().startswith("It fits on one H200")
    assert "35.31 GB" in page.locator("#calculator-components").inner_text()
    page.fill("[name=rank]", "8")
    assert "103,546,880 of" in answer.inner_text()
    page.select_option("[name=method]", "full")
    assert "70,553,706,496 of 70,553,706,496" in answer.inner_text()


@pytest.mark.parametrize("wrong", ["", "0", "1.5", "-3"])
def test_a_number_that_cannot_be_is_named(view, wrong):
    view.page.fill("[name=batch_size]", wrong)
    assert view.page.locator("#calculator-answer").inner_text().startswith("Rows in a batch: a whole number")
    view.page.fill("[name=batch_size]", "2")
    assert "GB a card" in view.page.locator("#calculator-answer").inner_text()


def test_a_finger_can_use_it_on_a_phone(view):
    view.page.set_viewport_size({"width": 390, "height": 844})
    for box in view.page.locator("#calculator select, #calculator input[type=number]").all():
        size = box.bounding_box()
        assert size["height"] >= 38 and size["x"] >= 0 and size["x"] + size["width"] <= 390
