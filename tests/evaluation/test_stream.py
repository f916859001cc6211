"""A streamed answer is the answer of `generate`, in pieces."""

import pytest
import torch

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
