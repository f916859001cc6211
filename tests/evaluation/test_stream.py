"""A streamed answer is the answer of `generate`, in pieces."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

from ftkit.errors import DataError
from ftkit.evaluation.generate import generate
from ftkit.evaluation.stream import stream
from ftkit.models import load

MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.mark.parametrize("family", ["llama3", "qwen3", "deepseek-v3", "gemma3", "smollm"])
def test_it_is_the_greedy_answer_of_generate(family):
    model, tokenizer = load(f"tiny-{family}", verbose=False)
    pieces = []
    answer = stream(model, tokenizer, MESSAGES, pieces.append, max_new_tokens=40)
    assert answer == "".join(pieces) and len(pieces) > 1
    assert answer == generate(model, tokenizer, [MESSAGES], max_new_tokens=40, progress=False)[0]


def test_it_ends_where_the_familys_turn_ends():
    model, tokenizer = load("tiny-gemma3", verbose=False)  # whose <end_of_turn> is not the tokenizer's eos
    end = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    forward = model.forward

    def always_ends(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits[..., end] = 1e9
        return out

    model.forward = always_ends
    assert stream(model, tokenizer, MESSAGES, lambda piece: None, max_new_tokens=9) == ""


@pytest.mark.parametrize("adapted", [False, True])
def test_a_penalty_of_the_model_s_own_configuration_is_not_the_likeliest_token(adapted):
    """Transformers adds it to whatever is asked for; an answer that copies from its prompt would be punished."""
    model, tokenizer = load("tiny-smollm", verbose=False)
    likeliest = generate(model, tokenizer, [MESSAGES], max_new_tokens=30, progress=False)
    if adapted:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear"))
    own = (model.get_base_model() if adapted else model).generation_config
    own.repetition_penalty, own.no_repeat_ngram_size, own.suppress_tokens = 5.0, 2, list(range(100, 20_000))
    assert generate(model, tokenizer, [MESSAGES], max_new_tokens=30, progress=False) == likeliest
    assert stream(model, tokenizer, MESSAGES, lambda piece: None, max_new_tokens=30) == likeliest[0]
    mine = GenerationConfig(max_new_tokens=30, do_sample=False)  # of the caller's own: Transformers' rules
    assert generate(model, tokenizer, [MESSAGES], generation_config=mine, progress=False) != likeliest
    assert model.generation_config.repetition_penalty == 5.0


def test_drawing_follows_the_seed():
    model, tokenizer = load("tiny-llama3", verbose=False)

    def drawn(seed):
        torch.manual_seed(seed)
        return stream(model, tokenizer, MESSAGES, lambda piece: None, max_new_tokens=30, temperature=1.5)

    assert drawn(0) == drawn(0) != drawn(1)


def test_a_conversation_that_does_not_fit_is_refused():
    model, tokenizer = load("tiny-llama3", verbose=False)
    with pytest.raises(DataError, match="2,048 that the model takes"):
        stream(model, tokenizer, MESSAGES, print, max_new_tokens=2048)
