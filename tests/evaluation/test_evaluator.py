"""`LLMEvaluator`: every method of the guide's, and that base and tuned are compared on the same rows in one call."""

import json

import pytest
import torch
from datasets import Dataset
from transformers import GenerationConfig

from ftkit import EvaluationConfig, LLMEvaluator
from ftkit.data import render_prompt
from ftkit.errors import ConfigError, DataError, MissingDependency, ModelError
from ftkit.evaluation import evaluator as module
from ftkit.evaluation import metrics
from ftkit.evaluation.general import general_texts
from ftkit.evaluation.generate import generate
from ftkit.evaluation.perplexity import text_likelihoods
from ftkit.models import load

FAST = {"max_new_tokens": 4, "general_texts": 2}


def evaluator(name="tiny-smollm", folder=".", **settings):
    config = EvaluationConfig(model_path=name, output_dir=str(folder), **(FAST | settings))
    return LLMEvaluator(config, verbose=False)


def test_the_guides_fields_are_all_there_with_the_books_defaults():
    config = EvaluationConfig()
    assert (
        vars(config).items()
        >= {
            "model_path": "embedded",
            "torch_dtype": "auto",
            "device": "auto",
            "trust_remote_code": False,
            "max_new_tokens": 256,
            "temperature": 0.7,
            "top_p": 0.9,
            "do_sample": False,
            "num_samples": None,
            "compute_perplexity": True,
            "output_dir": "./evaluation_results",
        }.items()
    )
    assert {"batch_size", "compute_rouge", "compute_bleu"} <= vars(config).keys()


def test_e11_5_zero_samples_are_refused_and_do_not_mean_all():
    with pytest.raises(ConfigError, match="num_samples must be above 0, not 0"):
        EvaluationConfig(num_samples=0)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"torch_dtype": "bf16"}, "'bfloat16'"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.1}, "top_p"),
        ({"num_seeds": 3}, "set do_sample"),
        ({"general_texts": -1}, "general_texts"),
    ],
)
def test_a_configuration_that_contradicts_itself_is_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        EvaluationConfig(**settings)


def test_base_and_tuned_answer_the_same_rows_and_are_compared_in_one_call(rows, tmp_path):
    results = evaluator("tiny-qwen3", tmp_path).run_full_evaluation(
        rows, ["Some text.", "x"], baseline="tiny-smollm", run_benchmarks=True, tasks=["ftkit_prose"]
    )
    stored = json.loads((tmp_path / "evaluation_results.json").read_text())
    assert stored == json.loads(json.dumps(results)) and (tmp_path / "report.html").stat().st_size > 5000
    alone = evaluator("tiny-smollm", tmp_path / "alone").run_full_evaluation(rows, ["Some text.", "x"])
    assert results["baseline"]["instruction_following"] == alone["instruction_following"]
    assert results["baseline"]["perplexity"] == alone["perplexity"]
    assert results["instruction_following"]["rows"] == len(rows)
    compared = results["comparison"]
    assert {"exact_match", "token_f1", "rougeL", "answers_bits_per_byte", "texts_bits_per_byte"} == set(compared)
    for name, found in compared.items():
        assert found["gain"]["estimate"] == pytest.approx(found["tuned"] - found["base"]), name
    bits = [m["instruction_following"]["answer_perplexity"]["bits_per_byte"] for m in (results["baseline"], results)]
    assert (compared["answers_bits_per_byte"]["base"], compared["answers_bits_per_byte"]["tuned"]) == (
        pytest.approx(bits[0]),
        pytest.approx(bits[1]),
    )
    assert "bits_per_byte,none" in results["benchmarks"]["results"]["ftkit_prose"]


def test_forgetting_is_the_change_of_bits_per_byte_on_general_text(rows, tmp_path):
    model, tokenizer = load("tiny-smollm", verbose=False)
    damaged, _ = load("tiny-smollm", verbose=False)
    with torch.no_grad():
        damaged.get_input_embeddings().weight.mul_(3.0)
    live = LLMEvaluator(EvaluationConfig(output_dir=str(tmp_path), **FAST), damaged, tokenizer, verbose=False)
    base = LLMEvaluator(EvaluationConfig(model_path="base", **FAST), model, tokenizer, verbose=False)
    found = live.run_full_evaluation(rows[:2], baseline=base)["forgetting"]
    totals = []
    for one in (model, damaged):
        texts = text_likelihoods(one, tokenizer, general_texts(2), progress=False)
        totals.append(sum(t.bits_per_byte * t.bytes for t in texts) / sum(t.bytes for t in texts))
    assert (found["base"], found["tuned"]) == (pytest.approx(totals[0]), pytest.approx(totals[1]))
    assert found["verdict"] == "worse" and found["texts"] == 2


def test_a_difference_inside_the_noise_is_reported_as_such(rows, tmp_path, capsys):
    one = evaluator(folder=tmp_path)
    results = one.run_full_evaluation(rows, baseline="tiny-smollm")
    assert {c["verdict"] for c in results["comparison"].values()} == {"no difference shown"}
    one.print_summary(results)
    assert "an interval that holds 0 shows no difference" in capsys.readouterr().out
    assert "no difference shown" in (tmp_path / "report.html").read_text()


def test_e11_3_prompts_are_chat_formatted_and_the_input_column_is_part_of_them(tmp_path, monkeypatch):
    alpaca = Dataset.from_list([{"instruction": "Add.", "input": "2 and 3", "output": "5"}])
    one, seen = evaluator(folder=tmp_path), []
    original = type(one.model).generate

    def spy(self, ids, **options):
        seen.append(one.tokenizer.decode(ids[0]))
        return original(self, ids, **options)

    monkeypatch.setattr(type(one.model), "generate", spy)
    found = one.evaluate_instruction_following(alpaca, "instruction", "output")
    assert seen == [render_prompt(one.tokenizer, [{"role": "user", "content": "Add.\n\n2 and 3"}])]
    assert found["samples"] == [
        {"instruction": "Add.\n\n2 and 3", "reference": "5", "prediction": found["samples"][0]["prediction"]}
    ]


def test_e11_3_test_rows_that_were_trained_on_are_counted(rows, tmp_path, capsys):
    one = evaluator(folder=tmp_path)
    asked_again = {"messages": [rows[2]["messages"][0], {"role": "assistant", "content": "another answer"}]}
    results = one.run_full_evaluation(rows[:4], train_dataset=[asked_again, rows[9]])
    assert results["seen_in_training"] == 1
    one.print_summary(results)
    assert "WARNING: 1 of 4 test rows" in capsys.readouterr().out
    assert "1 of 4 test rows" in (tmp_path / "report.html").read_text()


def test_e11_4_two_runs_give_the_same_answers_greedy_or_sampled(rows, tmp_path):
    for settings in ({}, {"do_sample": True}):
        one, two = (evaluator(folder=tmp_path, **settings).evaluate_instruction_following(rows[:3]) for _ in range(2))
        assert one == two
    assert evaluator(do_sample=True, seed=1).generate_responses(["a"]) != evaluator(do_sample=True).generate_responses(
        ["a"]
    )


def test_several_seeds_are_averaged_by_row_and_their_spread_is_reported(rows):
    found = evaluator(do_sample=True, num_seeds=3).evaluate_instruction_following(rows[:3])
    assert sum(found["finish"].values()) == 9 and set(found["by_seed"]) == set(found["scores"])
    alone = [evaluator(do_sample=True, seed=42 + i).evaluate_instruction_following(rows[:3]) for i in range(3)]
    means = [one["scores"]["token_f1"]["estimate"] for one in alone]
    assert found["scores"]["token_f1"]["estimate"] == pytest.approx(sum(means) / 3)


def test_prompts_may_be_texts_or_conversations_and_settings_transformers_own():
    one = evaluator()
    messages = [{"role": "user", "content": "Say a."}]
    texts = one.generate_responses(["Say a.", messages])
    assert texts[0] == texts[1] == generate(*load("tiny-smollm", verbose=False), [messages], max_new_tokens=4)[0]
    longer = one.generate_responses(["Say a."], GenerationConfig(max_new_tokens=9, do_sample=False))
    assert longer[0].startswith(texts[0][:1]) and len(longer[0]) > len(texts[0])


def test_the_guides_small_methods():
    one = evaluator()
    assert one.compute_rouge_scores(["a b"], ["a b"]).keys() == {"rouge1", "rouge2", "rougeL", "rougeLsum"}
    assert {"bleu", "precisions"} <= one.compute_bleu_score(["a b c d"], [["a b c d"]]).keys()
    assert {"perplexity", "avg_loss", "total_tokens"} <= one.compute_perplexity(["abc"]).keys()
    errors = one.analyze_errors(["p"], ["x"], ["y"], lambda *row: "mine")
    assert errors["errors_by_category"] == {"mine": 1} and errors["error_rate"] == 1
    assert set(one.metrics) == {"rouge", "bleu", "chrf"}


def test_json_references_are_scored_by_field(tmp_path):
    row = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": '{"a": 1, "b": 2}'}]}
    found = evaluator(folder=tmp_path).evaluate_instruction_following([row])
    assert {"exact_match", "valid_json", "field_accuracy", "rougeL"} == set(found["scores"])
    assert found["fields"] == {"a": 0, "b": 0} and found["errors"]["total_errors"] == 1


def test_a_score_and_a_categoriser_of_ones_own(rows):
    found = evaluator().evaluate_instruction_following(
        rows[:3], score=lambda p, r: {"length": len(p)}, categorize_fn=lambda *row: "all"
    )
    assert found["scores"].keys() == {"length", "rougeL"} and found["errors"]["errors_by_category"] == {"all": 3}


def test_e11_6_the_summary_prints_benchmarks_under_the_harness_own_keys(tmp_path, capsys):
    one = evaluator(folder=tmp_path)
    one.print_summary(one.run_full_evaluation(run_benchmarks=True, tasks=["ftkit_facts"]))
    shown = capsys.readouterr().out
    assert "ftkit_facts acc,none: 0." in shown and "standard error" in shown


def test_e11_1_a_metric_that_is_not_installed_is_left_out_with_a_note_or_refused_where_it_was_asked_for(
    monkeypatch, rows, tmp_path
):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    one = evaluator(folder=tmp_path)
    results = one.run_full_evaluation(rows[:2])
    assert "rouge" not in results["instruction_following"]
    assert [note.split(":")[0] for note in results["notes"]] == ["rouge", "bleu and chrf"]
    assert evaluator(compute_rouge=False, compute_bleu=False).notes == []
    with pytest.raises(MissingDependency, match=r"pip install 'ftkit\[metrics\]'"):
        evaluator(compute_rouge=True)


def test_e11_9_inputs_go_where_the_model_is():
    config = EvaluationConfig(model_path="tiny-smollm", device="cpu", **FAST)
    one = LLMEvaluator(config, verbose=False)
    assert one.model.device.type == "cpu" and one.generate_responses(["a"])
    with pytest.raises(ModelError, match="cuda"):
        LLMEvaluator(EvaluationConfig(model_path="tiny-smollm", device="cuda:99"), verbose=False).generate_responses(
            ["a"]
        )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({}, "nothing to evaluate"),
        ({"test_dataset": []}, "no rows"),
        ({"test_texts": []}, "no texts"),
        ({"test_dataset": [{"text": "plain"}]}, "row 1 is plain text"),
        ({"test_dataset": [{"question": "a", "answer": "b"}]}, "row 1 has no columns 'instruction' and 'response'"),
    ],
)
def test_empty_and_unfit_data_are_named(arguments, says, tmp_path):
    with pytest.raises(DataError, match=says):
        evaluator(folder=tmp_path).run_full_evaluation(**arguments)
    assert not (tmp_path / "report.html").exists()


def test_a_misspelt_model_is_found_before_the_baseline_is_measured(rows, tmp_path):
    with pytest.raises(ModelError, match="tiny-smolm.*'tiny-smollm'"):
        evaluator("tiny-smolm", tmp_path).run_full_evaluation(rows, baseline="tiny-smollm")
    with pytest.raises(ConfigError, match="needs its tokenizer"):
        LLMEvaluator(model=torch.nn.Linear(1, 1))


def test_what_cannot_be_measured_is_said_before_the_work(rows, tmp_path, monkeypatch):
    made = evaluator(folder=tmp_path)
    monkeypatch.setattr("ftkit.evaluation.measure.answer", None)
    with pytest.raises(DataError, match="has no task 'helaswag'"):
        made.run_full_evaluation(rows, run_benchmarks=True, tasks=["helaswag"])
    made.model.config.logit_scale = 0.25
    with pytest.raises(ModelError, match="logit_scale scales the logits.*compute_perplexity=False"):
        made.run_full_evaluation(rows)


def test_training_rows_of_plain_text_are_no_questions(rows, tmp_path):
    made = evaluator(folder=tmp_path, compute_perplexity=False)
    trained = [{"text": "Plain."}, rows[0]]
    assert made.run_full_evaluation(rows[:2], train_dataset=trained)["seen_in_training"] == 1
    assert made.run_full_evaluation(rows[:2], train_dataset=trained[:1])["seen_in_training"] == 0


def test_a_folder_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    one = evaluator(folder=tmp_path / "file")
    monkeypatch.setattr(one, "_measure", lambda **_: pytest.fail("it measured first"))
    with pytest.raises(ConfigError, match="cannot be written"):
        one.run_full_evaluation(test_texts=["a text"])
