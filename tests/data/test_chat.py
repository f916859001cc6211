"""The one chat function: what is trained, and that the prompt of training is the prompt of generation."""

import pytest

from ftkit.data import encode, encode_prompt, render_prompt
from ftkit.errors import DataError
from ftkit.models import load_tokenizer
from ftkit.models.families import stop_token_ids

FAMILIES = ["llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3", "deepseek-v3.2", "gemma3", "smollm"]
CONVERSATION = [
    {"role": "system", "content": "You are concise."},
    {"role": "user", "content": "Say hi."},
    {"role": "assistant", "content": "Hi!\n\tBye."},
    {"role": "user", "content": "हिन्दी, 日本語?"},
    {"role": "assistant", "content": "def f():\n    return 'é'"},
]


@pytest.fixture(params=FAMILIES)
def tokenizer(request):
    return load_tokenizer(f"tiny-{request.param}")


def test_only_the_answer_and_its_stop_token_are_trained(tokenizer):
    row = encode(tokenizer, CONVERSATION)
    trained = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(trained[:-1]) == CONVERSATION[-1]["content"]
    assert trained[-1] in stop_token_ids(tokenizer)
    # one run at the end, each label the id at its own place
    assert row["labels"] == [-100] * (len(row["labels"]) - len(trained)) + trained
    assert row["input_ids"][-len(trained) :] == trained


def test_the_untrained_head_is_the_prompt_of_generation(tokenizer):
    row = encode(tokenizer, CONVERSATION)
    prompt = encode_prompt(tokenizer, CONVERSATION)
    assert row["input_ids"][: len(prompt)] == prompt and set(row["labels"][: len(prompt)]) == {-100}
    assert all(label != -100 for label in row["labels"][len(prompt) :])


def test_e7_3_there_is_one_bos_where_the_family_has_one(tokenizer):
    ids = encode(tokenizer, CONVERSATION)["input_ids"]
    with_specials = tokenizer("x")["input_ids"]
    if with_specials[0] == tokenizer.bos_token_id:
        assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


def test_e7_1_e7_2_special_tokens_are_single_tokens(tokenizer):
    # every marker that the template writes is one id of the vocabulary, not a spelling of it in letters
    ids = encode(tokenizer, CONVERSATION)["input_ids"]
    text = tokenizer.decode(ids)
    for token in stop_token_ids(tokenizer):
        assert ids.count(token) == text.count(tokenizer.convert_ids_to_tokens(token))
    assert sum(ids.count(token) for token in stop_token_ids(tokenizer)) >= 2


def test_e7_4_newlines_and_tabs_survive(tokenizer):
    assert "Hi!\n\tBye." in render_prompt(tokenizer, CONVERSATION)


def test_a_prompt_that_is_no_prefix_is_refused():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template = "{{ messages|length }}{% if add_generation_prompt %}<|im_start|>{% endif %}"
    with pytest.raises(DataError, match="not a prefix"):
        encode(tokenizer, CONVERSATION)


def test_a_template_that_never_stops_is_refused():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    with pytest.raises(DataError, match="never learn to stop"):
        encode(tokenizer, CONVERSATION)


def test_a_tokenizer_without_template_is_refused():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template = None
    with pytest.raises(DataError, match="no chat template"):
        encode(tokenizer, CONVERSATION)
