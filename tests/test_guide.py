"""Every item and error of the guide has a place in the book and a guard that exists."""

import re

import pytest

from book import guide

ENTRIES = guide.entries()


def test_every_entry_is_complete_and_named_once():
    assert len({entry["id"] for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert re.fullmatch(r"[GE]\d+\.\d+", entry["id"])
        assert ("right" in entry) == entry["id"].startswith("E"), entry["id"]
        assert entry["guide"] and entry["place"] and entry["guard"], entry["id"]


def test_none_is_missing():
    """87 items and 65 errors, numbered without gaps in each chapter."""
    for kind, total in (("G", 87), ("E", 65)):
        numbers = sorted(tuple(map(int, entry["id"][1:].split("."))) for entry in guide.entries(kind))
        assert len(numbers) == total
        for chapter in {chapter for chapter, _ in numbers}:
            found = [number for c, number in numbers if c == chapter]
            assert found == list(range(1, len(found) + 1)), f"{kind}{chapter}"


def test_every_place_is_a_page():
    assert {entry["place"].partition("#")[0] for entry in ENTRIES} <= guide.pages()


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_every_guard_exists(entry):
    assert not [why for guard in entry["guard"] if (why := guide.problem(guard))]


def test_an_error_is_held_by_a_test_that_carries_its_number():
    for entry in guide.entries("E"):
        number = entry["id"].lower().replace(".", "_")
        assert any(re.search(rf"(^|_){number}(_|$)", guard.partition("::")[2]) for guard in entry["guard"]), entry["id"]


@pytest.mark.parametrize(
    ("guard", "why"),
    [
        ("tests/test_guide.py::test_that_is_not_there", "has no test"),
        ("tests/no_file.py::test_x", "there is no file"),
        ("cell notebooks/99_none#a", "there is no notebook"),
        ("cell notebooks/09_lora_in_practice#data", "with an assertion"),
        ("page ", "no words"),
    ],
)
def test_a_guard_that_guards_nothing_is_found(guard, why):
    assert why in guide.problem(guard)
