"""Metrics equal the libraries called directly, hold for every script, and say what is wrong with their input."""

import re

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from ftkit.errors import DataError, MissingDependency
from ftkit.evaluation import metrics
from ftkit.evaluation.metrics import (
    bleu,
    chrf,
    exact_match,
    field_accuracies,
    json_scores,
    rouge,
    scores_for,
    token_f1,
    words,
)

PREDICTIONS = ["The quick brown fox jumps over the dog.", "It is a_b, isn't it?\nYes, it is 3.5!", "nothing alike here"]
REFERENCES = ["A quick brown fox jumped over the lazy dog.", "It is b; yes.\nIt is 3.5.", "quite another sentence then"]
CHINESE = ["今天天气很好，我们去公园散步。", "他昨天买了一本新书。"]


def test_rouge_is_that_of_rouge_score():
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    rows = [scorer.score(right, given) for right, given in zip(REFERENCES, PREDICTIONS, strict=True)]
    for name, value in rouge(PREDICTIONS, REFERENCES).items():
        assert value == pytest.approx(sum(row[name].fmeasure for row in rows) / 3) and 0 < value < 1


def test_bleu_and_chrf_are_those_of_sacrebleu():
    found = bleu(PREDICTIONS, REFERENCES)
    direct = sacrebleu.corpus_bleu(PREDICTIONS, [REFERENCES])
    assert found["bleu"] == direct.score > 1 and found["precisions"] == direct.precisions
    assert "tok:13a" in found["signature"] and "eff:no" in found["signature"]
    assert chrf(PREDICTIONS, REFERENCES)["chrf"] == sacrebleu.corpus_chrf(PREDICTIONS, [REFERENCES]).score


def test_several_references_a_row_as_many_as_there_are():
    several = [[REFERENCES[0], PREDICTIONS[0]], [REFERENCES[1]], [REFERENCES[2]]]
    direct = sacrebleu.corpus_bleu(PREDICTIONS, [[r[0] for r in several], [PREDICTIONS[0], None, None]])
    assert bleu(PREDICTIONS, several)["bleu"] == direct.score > bleu(PREDICTIONS, REFERENCES)["bleu"]
    assert rouge(PREDICTIONS[:1], several[:1])["rougeL"] == 1


def test_e11_8_identical_text_scores_full_marks_in_every_script():
    for texts, tokenizer in (
        (CHINESE, "zh"),
        (["今日は天気がいいので公園へ行きます。"], "char"),
        (["오늘은 날씨가 매우 좋아서 공원에 갑니다"], "13a"),
        (["วันนี้อากาศดีมาก"], "char"),
        (["हिन्दी एक सुंदर और बड़ी भाषा है"], "13a"),
        (["red car"], "13a"),
    ):
        found = bleu(texts, texts)
        assert found["bleu"] == pytest.approx(100) and f"tok:{tokenizer}|" in found["signature"], texts
        assert rouge(texts, texts)["rougeL"] == chrf(texts, texts)["chrf"] / 100 == 1
        assert token_f1(texts[0], texts[0]) == {"token_f1": 1}
    direct = RougeScorer(["rougeL"]).score(CHINESE[0], CHINESE[0])["rougeL"].fmeasure
    assert direct == 0  # what the guide's call gives
    assert sacrebleu.corpus_bleu(["red car"], [["red car"]]).score == 0


def test_chinese_bleu_is_sacrebleus_with_its_chinese_tokenizer():
    given = ["今天天气好，我们去散步。", "他昨天买了新书。"]
    assert bleu(given, CHINESE)["bleu"] == sacrebleu.corpus_bleu(given, [CHINESE], tokenize="zh").score


def test_words_are_rouge_scores_for_ascii_and_letters_elsewhere():
    for text in PREDICTIONS + REFERENCES:
        assert words(text) == re.sub(r"[^a-z0-9]+", " ", text.lower()).split()
    assert words("Café日本 हिन्दी") == ["café", "日", "本", "हिन्दी"]


def test_token_f1_counts_repeated_words_as_often_as_both_hold_them():
    assert token_f1("the the the", "the cat")["token_f1"] == pytest.approx(2 * 1 / 5)
    assert token_f1("", "a")["token_f1"] == 0 and token_f1("", "?")["token_f1"] == 1


def test_json_is_compared_by_field_whatever_the_order_and_the_white_space():
    right = '{"a": 1, "b": {"c": [2]}}'
    assert json_scores('{"b":{"c":[2]}, "a":1}', right) == {"exact_match": 1, "valid_json": 1, "field_accuracy": 1}
    assert json_scores('{"a": true, "b": {"c": [2]}}', right)["field_accuracy"] == 0.5
    assert json_scores('{"a": 1, "b": {"c": [2]}, "d": 0}', right) == {
        "exact_match": 0,
        "valid_json": 1,
        "field_accuracy": 1,
    }
    for broken in ("", "[1]", "The answer: {}", "[" * 100_000):
        assert json_scores(broken, right) == {"exact_match": 0, "valid_json": 0, "field_accuracy": 0}
    assert field_accuracies(['{"a": 1}', "x"], [right, '{"a": 1}']) == {"a": 0.5, "b": 0}
    with pytest.raises(DataError, match="not a JSON object"):
        json_scores("{}", "x")


def test_the_scores_fit_the_references():
    assert scores_for(['{"a": 1}', "{}"]) is json_scores
    assert set(scores_for(['{"a": 1}', "x"])("x", "x")) == {"exact_match", "token_f1"}
    assert exact_match(" a\n", "a") == {"exact_match": 1}


@pytest.mark.parametrize("metric", [rouge, bleu, chrf])
def test_unequal_lengths_nothing_and_no_references_are_errors(metric):
    with pytest.raises(DataError, match="2 predictions and 1 references"):
        metric(["a", "b"], ["a"])
    with pytest.raises(DataError, match="no answers"):
        metric([], [])
    with pytest.raises(DataError, match="row 2 has no reference"):
        metric(["a", "b"], [["a"], []])


@pytest.mark.parametrize(("metric", "package"), [(rouge, "rouge_score"), (bleu, "sacrebleu"), (chrf, "sacrebleu")])
def test_e11_1_a_missing_package_is_named_with_the_command_that_installs_it(metric, package, monkeypatch):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=rf"{package}.*pip install 'ftkit\[metrics\]'"):
        metric(["a"], ["a"])
