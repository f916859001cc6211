"""lm-evaluation-harness on the tasks that ship with ftkit, offline, against our own answers example by example."""

import logging

import pytest

from ftkit.errors import DataError, MissingDependency
from ftkit.evaluation import metrics
from ftkit.evaluation.choices import choose
from ftkit.evaluation.generate import generate
from ftkit.evaluation.harness import LOCAL_TASKS, local_rows, run_harness, scores_of
from ftkit.evaluation.perplexity import likelihoods
from ftkit.models import load


@pytest.fixture(scope="module", params=["llama3", "qwen3"])
def ran(request):
    model, tokenizer = load(f"tiny-{request.param}", verbose=False)
    return model, tokenizer, run_harness(model, tokenizer, log_samples=True)


def test_its_accuracy_is_ours_to_the_example(ran):
    model, tokenizer, found = ran
    rows = local_rows("ftkit_facts")
    ours = choose(model, tokenizer, [r["question"] for r in rows], [r["choices"] for r in rows], progress=False)
    hits = [float(chosen == row["answer"]) for chosen, row in zip(ours, rows, strict=True)]
    assert [sample["acc"] for sample in found["samples"]["ftkit_facts"]] == hits
    assert found["results"]["ftkit_facts"]["acc,none"] == pytest.approx(sum(hits) / len(rows))
    assert 0 < sum(hits) < len(rows)


def test_its_generations_are_ours(ran):
    model, tokenizer, found = ran
    prompts = [[{"role": "user", "content": row["question"]}] for row in local_rows("ftkit_words")]
    ours = [text.split("\n")[0] for text in generate(model, tokenizer, prompts, max_new_tokens=16, progress=False)]
    assert [sample["resps"][0][0] for sample in found["samples"]["ftkit_words"]] == ours


def test_its_perplexity_is_that_of_the_text_behind_its_prefix_token(ran):
    model, tokenizer, found = ran
    texts = [row["text"] for row in local_rows("ftkit_prose")]
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [[first, *tokenizer(text, add_special_tokens=False)["input_ids"]] for text in texts]
    sizes = [len(text.encode()) for text in texts]
    ours = likelihoods(model, tokenizer, [(row, row) for row in ids], sizes, progress=False)
    bits = sum(t.bits_per_byte * t.bytes for t in ours) / sum(sizes)
    assert found["results"]["ftkit_prose"]["bits_per_byte,none"] == pytest.approx(bits, rel=1e-5)


def test_e11_6_results_stand_under_the_harness_own_keys_and_are_found_there(ran):
    *_, found = ran
    scores = {(task, metric): (value, error) for task, metric, value, error in scores_of(found)}
    assert scores["ftkit_facts", "acc,none"][1] > 0
    assert scores["ftkit_prose", "bits_per_byte,none"][1] is None
    assert {task for task, _ in scores} == set(LOCAL_TASKS)
    assert not any("stderr" in metric or metric == "sample_len" for _, metric in scores)


def test_e11_6_the_chat_template_is_used_and_can_be_left_out(ran):
    model, tokenizer, found = ran
    prompt = found["samples"]["ftkit_facts"][0]["arguments"][0][0]
    assert prompt == tokenizer.apply_chat_template(
        [{"role": "user", "content": local_rows("ftkit_facts")[0]["question"]}],
        tokenize=False,
        add_generation_prompt=True,
        enable_thinking=False,
    )
    plain = run_harness(model, tokenizer, ["ftkit_facts"], apply_chat_template=False, limit=2, log_samples=True)
    assert plain["samples"]["ftkit_facts"][0]["arguments"][0][0] == local_rows("ftkit_facts")[0]["question"]
    assert plain["n-samples"]["ftkit_facts"]["effective"] == 2


def test_few_shot_examples_come_before_the_question():
    model, tokenizer = load("tiny-smollm", verbose=False)
    found = run_harness(model, tokenizer, ["ftkit_facts"], num_fewshot=2, limit=1, log_samples=True)
    prompt = found["samples"]["ftkit_facts"][0]["arguments"][0][0]
    assert (
        prompt.count("<|im_start|>user") == 3 == prompt.count("<|im_start|>assistant")
        and found["n-shot"]["ftkit_facts"] == 2
    )


def test_e11_6_a_missing_harness_is_an_error_and_no_result(monkeypatch):
    monkeypatch.setattr(metrics, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"lm_eval.*pip install 'ftkit\[harness\]'"):
        run_harness(None, None)


def test_unknown_tasks_and_tasks_without_their_data_are_named():
    model, tokenizer = load("tiny-smollm", verbose=False)
    with pytest.raises(DataError, match="no task 'ftkit_fact'.*'ftkit_facts'"):
        run_harness(model, tokenizer, ["ftkit_fact"])
    with pytest.raises(DataError, match="hellaswag cannot be loaded.*ftkit_facts"):
        run_harness(model, tokenizer, ["hellaswag"])


def test_the_harness_leaves_loggers_as_they_were():
    logger = logging.getLogger("lm_eval")
    before = logger.level
    model, tokenizer = load("tiny-smollm", verbose=False)
    assert "samples" not in run_harness(model, tokenizer, ["ftkit_facts"], limit=1)
    assert logger.level == before


def test_the_shipped_rows_are_sound():
    facts = local_rows("ftkit_facts")
    assert len(facts) == 40 and all(len(set(row["choices"])) == 4 and row["answer"] in range(4) for row in facts)
    assert len({row["question"] for row in facts}) == 40
    assert {row["answer"] for row in facts} == {0, 1, 2, 3}
    assert all(row["answer"] and "\n" not in row["answer"] for row in local_rows("ftkit_words"))
    assert len(local_rows("ftkit_prose")) == 12
