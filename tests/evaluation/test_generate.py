"""Generation in batches against one prompt at a time, and where it stops."""

import pytest
import torch
from transformers import GenerationConfig

from ftkit.data import encode_prompt
from ftkit.errors import DataError
from ftkit.evaluation.answers import answer
from ftkit.evaluation.generate import Generation, complete, generate, generations
from ftkit.evaluation.metrics import exact_match
from ftkit.models import load
from ftkit.models.families import stop_token_ids

FAMILIES = [
    "llama3",
    "llama4",
    "qwen3",
    "qwen3-moe",
    "deepseek-v3",
    "deepseek-v3.2",
    "gemma3",
    "gemma3-vision",
    "smollm",
]
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


@pytest.mark.parametrize("family", FAMILIES)
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


def test_what_never_stopped_is_reported():
    model, tokenizer = load("tiny-smollm", verbose=False)
    found = generations(model, tokenizer, PROMPTS, max_new_tokens=6, progress=False)
    assert {(g.finish, g.tokens) for g in found} == {("length", 6)}
    assert answer(model, tokenizer, [{"messages": [*PROMPTS[0], {"role": "assistant", "content": "a"}]}]).stopped


def test_a_stopped_answer_counts_its_tokens_and_hides_the_padding_behind_it():
    model, tokenizer = load("tiny-smollm", verbose=False)
    prompts = [torch.tensor([encode_prompt(tokenizer, messages)]) for messages in PROMPTS]
    free = [model.generate(p, max_new_tokens=12, do_sample=False)[0, p.shape[1] :].tolist() for p in prompts]
    stop = free[0][4]  # said by one answer: it ends there, and the others go on
    model.generation_config.eos_token_id = [stop]
    found = generations(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=5, progress=False)
    for answer_, ids in zip(found, free, strict=True):
        end = ids.index(stop) + 1 if stop in ids else 12
        text = tokenizer.decode(ids[:end], skip_special_tokens=True)
        assert answer_ == Generation(text, end, "stopped" if stop in ids else "length")
    assert found[0].finish == "stopped"


def test_e11_4_a_prompt_at_or_beyond_the_context_is_reported_and_cuts_no_other_answer():
    model, tokenizer = load("tiny-smollm", verbose=False)
    lengths = [len(encode_prompt(tokenizer, messages)) for messages in PROMPTS]
    whole = generations(model, tokenizer, PROMPTS, max_new_tokens=8, progress=False)
    model.config.max_position_embeddings = max(lengths) - 10
    found = generations(model, tokenizer, PROMPTS, max_new_tokens=8, batch_size=5, progress=False)
    for before, after, length in zip(whole, found, lengths, strict=True):
        room = model.config.max_position_embeddings - length
        if room <= 0:
            assert (after.finish, after.tokens, after.text) == ("prompt_too_long", 0, "")
        else:
            assert after.tokens == min(8, room) and before.text.startswith(after.text)
    assert {g.finish for g in found} == {"prompt_too_long", "length"}
    assert generations(model, tokenizer, PROMPTS[1:2], max_new_tokens=10**6, progress=False)[0].tokens < 10**3


def test_e11_4_sampling_has_a_seed_and_leaves_the_global_generator_alone():
    model, tokenizer = load("tiny-smollm", verbose=False)

    def drawn(**options):
        return generate(model, tokenizer, PROMPTS, do_sample=True, max_new_tokens=8, progress=False, **options)

    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert drawn(seed=3) == drawn(seed=3) != drawn(seed=4)
    assert torch.equal(before, torch.get_rng_state())
    greedy = generate(model, tokenizer, PROMPTS, max_new_tokens=8, progress=False)
    assert drawn(temperature=1e-4) == greedy == drawn(top_p=1e-6)


def test_a_generation_config_of_ones_own_still_stops_at_the_familys_tokens():
    model, tokenizer = load("tiny-smollm", verbose=False)
    own = GenerationConfig(max_new_tokens=5, do_sample=False, repetition_penalty=50.0)
    found = generations(model, tokenizer, PROMPTS, generation_config=own, progress=False)
    assert {g.tokens for g in found} == {5} and own.eos_token_id is None
    assert [g.text for g in found] != generate(model, tokenizer, PROMPTS, max_new_tokens=5, progress=False)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_have_ended_leave_the_batch_and_change_no_answer(family, monkeypatch):
    model, tokenizer = load(f"tiny-{family}", verbose=False)
    prompts = [[{"role": "user", "content": "y" * n}] for n in (1, 9, 4, 30, 5, 17, 12)]
    ids = [encode_prompt(tokenizer, prompt) for prompt in prompts]
    # Random weights hardly ever stop: one token in six ends an answer here, so that they end at different times.
    often = [*range(0, len(tokenizer), 6)]
    monkeypatch.setattr("ftkit.evaluation.generate.stop_token_ids", lambda *_: often)
    read = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    alone = [complete(model, tokenizer, [prompt], max_new_tokens=30)[0] for prompt in ids]
    ends = sorted(map(len, alone))
    read.clear()
    assert complete(model, tokenizer, ids, max_new_tokens=30, batch_size=7) == alone
    leaving, read[:] = sum(read), []
    monkeypatch.setattr("ftkit.evaluation.generate.SMALLEST", 100)
    assert complete(model, tokenizer, ids, max_new_tokens=30, batch_size=7) == alone
    hook.remove()
    # Of seven rows four must have ended before the last one does.
    assert (leaving < sum(read)) == (ends[3] < ends[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_reading_the_shared_beginning_once_changes_no_answer(family, monkeypatch):
    model, tokenizer = load(f"tiny-{family}", verbose=False)
    begin = "Answer in one word, and be quick about it: "
    prompts = [[{"role": "user", "content": begin + "y" * n + "?"}] for n in (1, 90, 5, 30, 5)]
    options = {"max_new_tokens": 10, "progress": False}
    read = []
    hook = model.register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    shared = [generations(model, tokenizer, prompts, batch_size=size, **options) for size in (1, 3, 5)]
    with_prefix, read[:] = sum(read), []
    monkeypatch.setattr("ftkit.evaluation.prefix.SHORTEST", 10**6)
    alone = [generations(model, tokenizer, prompts, batch_size=size, **options) for size in (1, 3, 5)]
    hook.remove()
    assert shared == alone and shared[0] == shared[1] == shared[2]
    # Tokens that were read; where a cache is of another kind (Gemma's windows, V3.2's indexer) the prefix is of no use.
    assert (with_prefix < sum(read)) == (family not in ("llama4", "gemma3", "gemma3-vision", "deepseek-v3.2"))
