"""Answers that are kept: the same as new ones, and only of the very model, prompt and settings that gave them."""

import dataclasses

import pytest
import torch

from ftkit import EvaluationConfig, LLMEvaluator
from ftkit.errors import ConfigError
from ftkit.evaluation.answers import answer
from ftkit.evaluation.generate import generations
from ftkit.methods.lora import attach_lora
from ftkit.models import Quantization, load

PROMPTS = [[{"role": "user", "content": "Answer in one word, and be quick: " + "y" * n}] for n in (3, 11, 3, 40)]
OPTIONS = {"max_new_tokens": 6, "progress": False}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ask(model, tokenizer, prompts=PROMPTS, **more):
    return generations(model, tokenizer, prompts, keep=True, **OPTIONS | more)


def kept(answers):
    return [a.kept for a in answers]


def adapted(quantization=None):
    base, tokenizer = load("tiny-llama3", quantization=quantization, verbose=False)
    model = attach_lora(base, r=4, lora_alpha=8)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model, tokenizer


def test_kept_answers_are_those_without_a_cache_and_nothing_is_generated_again(monkeypatch):
    model, tokenizer = load("tiny-llama3", verbose=False)
    plain = generations(model, tokenizer, PROMPTS, **OPTIONS)
    assert ask(model, tokenizer, PROMPTS[:1]) == plain[:1]
    asked = []
    generate = model.generate
    monkeypatch.setattr(model, "generate", lambda ids, **k: asked.append(len(ids)) or generate(ids, **k))
    some = ask(model, tokenizer)
    assert kept(some) == [True, False, True, False] and sum(asked) == 2
    every = ask(model, tokenizer)
    assert kept(every) == [True] * 4 and sum(asked) == 2
    for found in (some, every):
        assert [dataclasses.replace(a, kept=False) for a in found] == plain


def test_a_prompt_beyond_the_context_is_kept_as_such():
    model, tokenizer = load("tiny-llama3", verbose=False)
    model.config.max_position_embeddings = 40
    first, second = (ask(model, tokenizer, PROMPTS[-1:] + PROMPTS[:1])[0] for _ in range(2))
    assert first.finish == second.finish == "prompt_too_long" and second.kept and not first.kept


@pytest.mark.parametrize("quantization", [None, Quantization(compute_dtype="float32")], ids=["wide", "4 bits"])
def test_the_same_model_is_recognised_wherever_it_comes_from(quantization, tmp_path):
    live, tokenizer = adapted(quantization)
    live.train()
    ask(live, tokenizer)
    live.save_pretrained(str(tmp_path / "run"), save_embedding_layers=False)
    tokenizer.save_pretrained(str(tmp_path / "run"))
    loaded, its = load(str(tmp_path / "run"), quantization=quantization, verbose=False)
    assert all(kept(ask(loaded, its)))
    base, its = load("tiny-llama3", quantization=quantization, verbose=False)
    assert not any(kept(ask(base, its)))
    assert all(kept(ask(live.unload(), tokenizer)))


@pytest.mark.parametrize(
    "what", ["weight", "one unused embedding", "scale", "precision", "longest answer", "adapter off"]
)
def test_a_model_or_setting_that_is_another_answers_anew(what):
    model, tokenizer = adapted()
    ask(model, tokenizer)
    assert all(kept(ask(model, tokenizer)))
    layer = next(m for m in model.modules() if hasattr(m, "lora_A"))
    options = {}
    if what == "weight":
        layer.lora_B["default"].weight.data[0, 0] += 1e-6
    elif what == "unused embedding":  # no prompt here holds that token, so no logit of a prompt moves
        model.get_input_embeddings().weight.data[-1, 0] += 1
    elif what == "scale":
        layer.scaling["default"] *= 1.5
    elif what == "precision":
        model.to(torch.bfloat16)
    elif what == "longest answer":
        options = {"max_new_tokens": 5}
    else:
        model.base_model.disable_adapter_layers()
    assert not any(kept(ask(model, tokenizer, **options)))


def test_only_greedy_answers_are_kept():
    model, tokenizer = load("tiny-llama3", verbose=False)
    with pytest.raises(ConfigError, match="only greedy answers can be kept"):
        ask(model, tokenizer, do_sample=True)
    with pytest.raises(ConfigError, match="keep_answers is for greedy answers"):
        EvaluationConfig(keep_answers=True, do_sample=True)


def test_the_evaluator_says_how_many_it_took_from_the_cache(tmp_path):
    model, tokenizer = load("tiny-llama3", verbose=False)
    rows = [{"messages": [*p, {"role": "assistant", "content": "Yes."}]} for p in PROMPTS]
    settings = {"max_new_tokens": 6, "output_dir": str(tmp_path / "report"), "keep_answers": True}
    one = LLMEvaluator(EvaluationConfig(**settings), model, tokenizer, verbose=False)
    first, second = (one.run_full_evaluation(rows) for _ in range(2))
    a, b = (found["instruction_following"] for found in (first, second))
    assert (a["kept"], b["kept"]) == (0, 4) and a["row_scores"] == b["row_scores"]
    assert answer(model, tokenizer, rows, keep=True, **OPTIONS).kept == 4
    one.print_summary(second)
