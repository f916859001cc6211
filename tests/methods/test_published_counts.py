"""Published numbers of trained parameters, recomputed to the unit from real configurations without weights."""

import re
from pathlib import Path

import pytest

from ftkit.methods.published import COUNTS, Published, count, shown, verdict

BIBLIOGRAPHY = Path(__file__).parents[2] / "book/references.bib"
each = pytest.mark.parametrize("row", COUNTS, ids=lambda row: f"{row.source} {row.model} {row.method} r={row.r}")


@each
def test_it_comes_out_to_the_unit(row):
    assert count(row) == row.numbers


@each
def test_what_differs_from_print_is_marked_and_nothing_else(row):
    assert (verdict(row) == "differs") == bool(row.slip)


def test_the_known_slips_are_these():
    slips = [(row.model, row.method, row.r) for row in COUNTS if row.slip]
    assert slips == [
        ("GPT-2 M", "lora", 4),
        ("GPT-2 L", "lora", 4),
        ("RoBERTa large", "vera", 16),
        ("GPT-3", "vera", 16),
        ("GPT-3", "vera", 256),
    ]
    for r, printed in ((16, "2.8M"), (256, "8.7M")):
        assert shown(192 * (12288 + 128 * r), printed) == printed  # what the note on VeRA's two says


@pytest.mark.parametrize(
    ("printed", "numbers", "says"),
    [
        ("4.7M", 4_718_592, "agrees"),
        ("36.8K", 36_864, "cut off"),
        ("36.9K", 36_864, "agrees"),
        ("49.5K", 49_920, "differs"),
        ("129,024", 129_024, "agrees"),
        ("129,024", 129_025, "differs"),
        ("", 1, ""),
    ],
)
def test_a_printed_number_agrees_when_it_rounds_to_what_is_printed(printed, numbers, says):
    assert verdict(Published("", "", (), "lora", 1, printed, numbers)) == says


def test_every_source_stands_in_the_bibliography():
    known = set(re.findall(r"^@\w+\{([^,]+),", BIBLIOGRAPHY.read_text("utf8"), re.MULTILINE))
    assert {row.source for row in COUNTS} <= known
