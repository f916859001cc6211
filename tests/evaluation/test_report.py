"""The report is one file, asks nobody for anything, and shows what a model wrote as text."""

import json
import re
from html.parser import HTMLParser

import pytest

from ftkit import EvaluationConfig, LLMEvaluator
from ftkit.evaluation.report import html, save

HOSTILE = "<script>alert(1)</script><img src=x onerror='alert(2)'>{{ 7 * 7 }} & \"quoted\""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A whole evaluation in which names, prompts, references and answers are hostile."""
    folder = tmp_path_factory.mktemp("report")
    rows = [
        {"messages": [{"role": "user", "content": HOSTILE}, {"role": "assistant", "content": HOSTILE}]} for _ in "ab"
    ]
    config = EvaluationConfig(model_path="tiny-qwen3", max_new_tokens=4, general_texts=2, output_dir=str(folder))
    made = LLMEvaluator(config, verbose=False).run_full_evaluation(
        rows, ["plain text"], baseline="tiny-smollm", train_dataset=rows, run_benchmarks=True, tasks=["ftkit_facts"]
    )
    made["model"] = made["baseline"]["model"] = HOSTILE
    for model in (made, made["baseline"]):
        answered = model["instruction_following"]
        for sample in answered["samples"]:
            sample["prediction"] = HOSTILE
        for examples in answered["errors"]["sample_errors"].values():
            for example in examples:
                example["prediction"] = HOSTILE
    return made


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.attributes, self.text = set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.attributes += attributes

    def handle_data(self, data):
        self.text += data


def test_what_a_model_wrote_is_text(results):
    page = Elements(html(results))
    assert not page.tags & {"script", "img", "iframe", "link", "object", "embed", "form", "base"}
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) >= 12  # titles, questions, references, answers, as they are


def test_it_asks_nobody_for_anything(results):
    text = html(results)
    page = Elements(text)
    assert not [v for name, v in page.attributes if name in ("src", "href", "srcset", "action", "data")]
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text


def test_it_holds_what_was_measured(results):
    text = Elements(html(results)).text
    for needed in (
        "Is there a difference?",
        "Was anything forgotten?",
        "Errors by category",
        "side by side",
        "Perplexity of plain texts",
        "acc,none",
        "exact_match",
        "2 of 2 test rows",
        "max_new_tokens",
    ):
        assert needed in text, needed
    svg = re.findall(r"<svg.*?</svg>", html(results), re.DOTALL)
    assert len(svg) == 2 and all('role="img"' in one and "aria-label" in one for one in svg)


def test_it_is_written_for_phones_and_the_dark(results):
    text = html(results)
    assert 'name="viewport"' in text and "prefers-color-scheme: dark" in text


def test_files_are_whole_and_replace_earlier_ones(results, tmp_path):
    save(results, tmp_path)
    save(results | {"model": "later", "loss": float("nan"), "half": "\ud800"}, tmp_path)
    stored = json.loads((tmp_path / "evaluation_results.json").read_text("utf-8"))
    assert stored["model"] == "later" and stored["loss"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"evaluation_results.json", "report.html"}


def test_a_model_alone_and_texts_alone_have_a_report(tmp_path):
    config = EvaluationConfig(model_path="tiny-smollm", output_dir=str(tmp_path))
    LLMEvaluator(config, verbose=False).run_full_evaluation(test_texts=["some text"])
    text = (tmp_path / "report.html").read_text()
    assert "Perplexity of plain texts" in text and "Is there a difference?" not in text
