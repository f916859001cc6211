"""Generation in batches against one prompt at a time, and where it stops."""

import pytest
import torch

from ftkit.data import encode_prompt
from ftkit.errors import DataError
from ftkit.evaluation.answers import answer, exact_match
from ftkit.evaluation.generate import generate
from ftkit.models import load
from ftkit.models.families import stop_token_ids

PROMPTS = [[{"role": "user", "content": "x" * n}] for n in (9, 1, 30, 4, 17)]


def slow_reference(model, tokenizer, messages, n):
    """Greedy decoding with the whole sequence through the model at every step, no cache and no padding."""
    ids, stops = encode_prompt(tokenizer, messages), stop_token_ids(tokenizer, model)
    answer = []
    with torch.no_grad():
        while len(answer) < n:
            token = model(torch.tensor([ids + answer]), use_cache=False).logits[0, -1].argmax().item()
            if token in stops:
                break
            answer.append(token)
    return tokenizer.decode(answer, skip_special_tokens=True)


@pytest.mark.parametrize("family", ["llama3", "qwen3", "gemma3", "smollm"])
@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_give_what_one_at_a_time_gives(family, batch_size):
    model, tokenizer = load(f"tiny-{family}", verbose=False)
    answers = generate(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=batch_size, progress=False)
    assert answers == [slow_reference(model, tokenizer, messages, 8) for messages in PROMPTS]


def test_e11_10_it_stops_at_the_familys_end_of_turn():
    model, tokenizer = load("tiny-gemma3", verbose=False)
    stop = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    assert stop != tokenizer.eos_token_id
    # a model that says nothing but the end of the turn
    prompt = torch.tensor([encode_prompt(tokenizer, PROMPTS[0])])
    with torch.no_grad():
        last = model.model(prompt).last_hidden_state[0, -1]
        model.lm_head = torch.nn.Linear(*reversed(model.lm_head.weight.shape), bias=False)  # untied
        model.lm_head.weight.zero_()
        model.lm_head.weight[stop] = last
        assert model(prompt).logits[0, -1].argmax().item() == stop
    assert generate(model, tokenizer, PROMPTS[:1], max_new_tokens=50, progress=False) == [""]


def test_the_reference_is_not_shown_to_the_model():
    model, tokenizer = load("tiny-smollm", verbose=False)
    shown = [*PROMPTS[0], {"role": "assistant", "content": "secret"}]
    assert generate(model, tokenizer, [shown], max_new_tokens=5, progress=False) == generate(
        model, tokenizer, PROMPTS[:1], max_new_tokens=5, progress=False
    )


def test_answers_stay_with_their_rows(rows):
    model, tokenizer = load("tiny-smollm", verbose=False)
    got = answer(model, tokenizer, rows, max_new_tokens=4, progress=False)
    assert got.references == [row["messages"][-1]["content"] for row in rows]
    assert got.column("exact_match") == [
        exact_match(p, r)["exact_match"] for p, r in zip(got.predictions, got.references, strict=True)
    ]
    assert got.mean("exact_match") == sum(got.column("exact_match")) / len(rows)


def test_no_rows_is_an_error():
    model, tokenizer = load("tiny-smollm", verbose=False)
    with pytest.raises(DataError, match="no rows"):
        answer(model, tokenizer, [])


def test_a_row_s_tools_are_offered_to_the_model():
    model, tokenizer = load("tiny-qwen3", verbose=False)
    tokenizer.chat_template = (
        "{% if tools %}{{ tools[0].function.name }}: {% endif %}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    row = {"messages": PROMPTS[0], "tools": [{"type": "function", "function": {"name": "add", "parameters": {}}}]}
    written = [{"role": "user", "content": "add: " + PROMPTS[0][0]["content"]}]
    options = {"max_new_tokens": 5, "progress": False}
    assert generate(model, tokenizer, [row], **options) == generate(model, tokenizer, [written], **options)
    assert generate(model, tokenizer, [row], **options) != generate(model, tokenizer, PROMPTS[:1], **options)
    reference = {"role": "assistant", "content": "x"}
    answers = answer(model, tokenizer, [row | {"messages": [*PROMPTS[0], reference]}], exact_match, **options)
    assert answers.predictions == generate(model, tokenizer, [row], **options)
