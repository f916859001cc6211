"""Masks from first principles train the same tokens after the same contexts as the production function."""

import pytest

from ftkit.data.chat import encode_rows
from ftkit.models import load_tokenizer
from ftkit.models.families import stop_token_ids
from ftkit.scratch.masks import every_answer, last_answer

FAMILIES = ["llama3", "llama4", "qwen3", "deepseek-v3", "deepseek-v3.2", "gemma3", "smollm"]
TALK = [
    {"role": "user", "content": "Sum 2 and 2."},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And as code?\n"},
    {"role": "assistant", "content": "def f():\n\treturn 2 + 2"},
    {"role": "user", "content": "दो?"},
    {"role": "assistant", "content": "दो।"},
]


def learned(rows) -> set[tuple]:
    """Every trained token with all that stands before it: what the loss sees."""
    return {tuple(row["input_ids"][: t + 1]) for row in rows for t, label in enumerate(row["labels"]) if label != -100}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_answer(family):
    tokenizer = load_tokenizer(f"tiny-{family}")
    production = encode_rows(tokenizer, [{"messages": TALK}])[0].rows
    assert [last_answer(tokenizer, TALK, stop_token_ids(tokenizer))] == production


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_is_learned_after_the_same_context(family):
    tokenizer = load_tokenizer(f"tiny-{family}")
    production = encode_rows(tokenizer, [{"messages": TALK}], train_on="all")[0].rows
    rows = every_answer(tokenizer, TALK, stop_token_ids(tokenizer))
    assert learned(rows) == learned(production) and len(rows) == 3


def test_a_prompt_that_is_no_beginning_is_refused():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template += "{% if add_generation_prompt %}x{% endif %}"
    with pytest.raises(ValueError, match="begins"):
        last_answer(tokenizer, TALK, stop_token_ids(tokenizer))
