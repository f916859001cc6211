"""Answers that are read along another model's instead of written: the same, token by token."""

import pytest
import torch

from ftkit.data.chat import encode_prompt
from ftkit.errors import ModelError
from ftkit.export.receipt import change, greedy, greedy_from, logits_along
from ftkit.models import load

PROMPTS = [[{"role": "user", "content": "z" * n}] for n in (2, 7, 19, 5)]
TOKENS = 16


def two_models(std):
    """A tiny model, and one whose weights are a little off."""
    (one, tokenizer), (other, _) = (load("tiny-llama3", verbose=False) for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    for parameter in other.parameters():
        parameter.data += std * torch.randn(parameter.shape, generator=generator)
    return one, other, tokenizer, [encode_prompt(tokenizer, prompt) for prompt in PROMPTS]


@pytest.mark.parametrize("std", [0.0, 1e-3, 1e-2, 1e-1])
def test_an_answer_that_is_read_is_the_one_that_would_be_written(std):
    one, other, tokenizer, prompts = two_models(std)
    said = greedy(one, tokenizer, prompts, TOKENS)
    here, there = (logits_along(model, prompts, said) for model in (one, other))
    written = greedy(other, tokenizer, prompts, TOKENS)
    assert greedy_from(other, tokenizer, prompts, TOKENS, said, there) == written
    found = change(here, there)
    assert found.answers == sum(a != b for a, b in zip(said, written, strict=True)) / len(prompts)
    assert (found.answers > 0) == (std >= 1e-1) or 0 < std < 1e-1


def test_at_the_end_of_the_context_answers_are_cut_alike():
    one, other, tokenizer, prompts = two_models(1e-1)
    for model in (one, other):
        model.config.max_position_embeddings = max(map(len, prompts)) + 2
    said = greedy(one, tokenizer, prompts, TOKENS)
    there = logits_along(other, prompts, said)
    assert greedy_from(other, tokenizer, prompts, TOKENS, said, there) == greedy(other, tokenizer, prompts, TOKENS)
    for model in (one, other):
        model.config.max_position_embeddings = max(map(len, prompts))
    with pytest.raises(ModelError, match="prompt 3 fills the context"):
        greedy(one, tokenizer, prompts, TOKENS)
