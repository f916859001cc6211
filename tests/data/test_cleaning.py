"""Cleaning keeps what can be read; filters know what they look at."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data.cleaning import clean_text, kind_of, quality_problem, row_text

CODE = "if x:\n    y = 1\n\n\tz = [i for i in range(3)]\nreturn y"
PROBES = [
    "4",
    "巴黎",
    "हिन्दी में उत्तर देना थोड़ा कठिन है, लेकिन हम कोशिश करेंगे। " * 3,
    "ภาษาไทยไม่มีช่องว่างระหว่างคำ",
    CODE * 3,
    "x = (-b ± √(b² − 4ac)) / 2a = 3.14159 × 10^(−7) + ∫₀¹ x² dx",
    "| a | b |\n|---|---|\n" + "\n".join(f"| {i} | {i * i % 97} |" for i in range(40)),
    '{"a": [1, 2, {"b": null}], "c": "x"}',
    "🙂👩‍👩‍👧 ok",
    "نمی‌خواهم",  # with a zero-width non-joiner
    "\n".join(f"{i}: {i * 7919 % 1000:b}" for i in range(60)),
]


@settings(max_examples=1000)
@given(st.text())
def test_cleaning_twice_is_cleaning_once(text):
    once = clean_text(text)
    assert clean_text(once) == once
    once.encode()  # whatever came in, what comes out can be written


@settings(max_examples=1000)
@given(st.text(st.characters(categories=["L", "M", "N", "P", "S"], exclude_characters="\u200b\u2060\ufeff")))
def test_letters_marks_numbers_and_signs_of_every_script_stay(text):
    assert clean_text(text) == text


@pytest.mark.parametrize("text", PROBES)
def test_e7_4_nothing_that_can_be_read_is_changed(text):
    assert clean_text(text) == text.rstrip()


def test_e7_4_code_keeps_newlines_and_indentation():
    assert clean_text(CODE) == CODE and clean_text(CODE.replace("\n", "\r\n")) == CODE


def test_e7_4_control_and_zero_width_characters_go():
    assert clean_text("\ufeff\x00a\x7f\u200bb\x9f\n\n\x1b[0m") == "ab\n\n[0m"
    assert clean_text("a\ud800") == "a\ufffd" and clean_text(None) == ""


@pytest.mark.parametrize("text", PROBES)
def test_e7_5_short_answers_code_mathematics_tables_and_scripts_pass(text):
    assert quality_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("   ", "too short"),
        ("a" * 1001, "too long"),
        ("caf\ufffd \ufffdt\ufffd", "wrong encoding"),
        ("cafÃ© Ã  la crÃ¨me", "wrong encoding"),
        ("ha " * 200, "repetitive"),
        ("".join(random.Random(0).choices("~!@#%^&*?<>,.¤§¶†‡•…", k=600)), "few letters"),
    ],
)
def test_what_should_not_be_trained_on(text, problem):
    assert quality_problem(text, max_length=1000) == problem


def test_kinds():
    assert [kind_of(t) for t in (PROBES[4], PROBES[6], PROBES[7], PROBES[2])] == ["code", "table", "json", "prose"]


def test_a_row_says_what_it_calls():
    def row(*calls, content=""):
        return {
            "messages": [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": content, "tool_calls": calls},
            ]
        }

    def call(arguments, **other):
        return {"type": "function", "function": {"name": "f", "arguments": arguments} | other}

    assert row_text(row(call({"b": 1, "a": "é"}), call('{"x": 2}'))) == 'q\nf {"a":"é","b":1}\nf {"x": 2}'
    assert row_text(row(call({"a": 1}), content="Wait.")) == 'q\nWait.\nf {"a":1}'
    assert row_text(row({"name": "g", "arguments": {}})) == "q\ng {}"
    assert row_text(row({"function": "h", "id": 3})) == 'q\n{"function":"h","id":3}'
    assert row_text(row(call({"a": "\ud800"}))).encode()
    assert row_text(row()) == "q\n"
