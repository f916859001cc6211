"""Which turns are trained, in every family, and what happens where a template does not allow it."""

from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit.data import encode, encode_prompt, encode_rows, render_prompt
from ftkit.errors import ConfigError, DataError
from ftkit.models import load_tokenizer
from ftkit.models.families import stop_token_ids

FAMILIES = ["llama3", "llama4", "qwen3", "qwen3-moe", "deepseek-v3", "deepseek-v3.2", "gemma3", "smollm"]
CONVERSATION = [
    {"role": "system", "content": "You are concise."},
    {"role": "user", "content": "Say hi."},
    {"role": "assistant", "content": "Hi!\n\tBye."},
    {"role": "user", "content": "Again"},
    {"role": "assistant", "content": "Hi."},
]
ANSWERS = ["Hi!\n\tBye.", "Hi."]


@pytest.fixture(params=FAMILIES)
def tokenizer(request):
    return load_tokenizer(f"tiny-{request.param}")


def spans(row) -> list[list[int]]:
    """The stretches of trained tokens of a row."""
    found, inside = [], False
    for label in row["labels"]:
        if label != -100 and not inside:
            found.append([])
        inside = label != -100
        if inside:
            found[-1].append(label)
    return found


def test_every_answer_is_trained_once_with_its_stop_token(tokenizer):
    encoded = encode_rows(tokenizer, [{"messages": CONVERSATION}], train_on="all")[0]
    trained = [span for row in encoded.rows for span in spans(row)]
    assert [tokenizer.decode(span[:-1]) for span in trained] == ANSWERS
    assert all(span[-1] in stop_token_ids(tokenizer) for span in trained)
    assert encoded.mismatches == 0


def test_before_every_trained_answer_stands_the_prompt_of_generation(tokenizer):
    encoded = encode_rows(tokenizer, [{"messages": CONVERSATION}], train_on="all")[0]
    starts = {tuple(row["input_ids"][:i]) for row in encoded.rows for i, label in enumerate(row["labels"])
              if label != -100 and row["labels"][i - 1] == -100}  # fmt: skip
    assert starts == {tuple(encode_prompt(tokenizer, CONVERSATION[:end])) for end in (3, 5)}


def test_turns_that_a_template_rewrites_are_rows_of_their_own():
    for name, ends in (("tiny-qwen3", [3, 5]), ("tiny-llama3", [5])):
        encoded = encode_rows(load_tokenizer(name), [{"messages": CONVERSATION}], train_on="all")[0]
        assert encoded.ends == ends


PIECES = [*"ab \n\té日<|>\u200d", "<|im_start|>", "<|eot_id|>", "<end_of_turn>", "assistant\n"]
TEXT = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)
LOADED = [load_tokenizer(f"tiny-{family}") for family in FAMILIES]


@settings(max_examples=1000, deadline=None)
@given(tokenizer=st.sampled_from(LOADED), turns=st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3))
def test_the_ids_are_those_that_the_tokenizer_gives_the_rendered_texts(tokenizer, turns):
    """Texts are encoded in pieces, each distinct one once; it must not show."""
    messages = [
        {"role": role, "content": text}
        for turn in turns
        for role, text in zip(("user", "assistant"), turn, strict=True)
    ]

    def ids(messages, **options):
        text = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=False, **options)
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    prompt, whole = ids(messages[:-1], add_generation_prompt=True), ids(messages)
    encoded = encode_rows(tokenizer, [{"messages": messages}, {"text": turns[0][0]}], on_mismatch="common_prefix")
    row = encoded[0].rows[0]
    assert encode_prompt(tokenizer, messages) == prompt and row["input_ids"] == whole[: len(row["input_ids"])]
    assert (encoded[0].mismatches == 0) == (whole[: len(prompt)] == prompt)
    first = next((i for i, (a, b) in enumerate(zip(prompt, whole, strict=False)) if a != b), len(prompt))
    assert row["labels"] == [-100] * first + row["input_ids"][first:]
    plain = tokenizer(turns[0][0])["input_ids"]
    assert encoded[1].rows[0]["input_ids"] == [*plain, tokenizer.eos_token_id]


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_pieces_are_encoded_as_in_their_place_where_white_space_is_marked(scheme):
    """SentencePiece's vocabularies mark a text's beginning, all beginnings of pieces, or none."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(["<unk>", "▁", "a", "b"])}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.add_special_tokens(["<s>", "</s>", AddedToken("<m>", rstrip=True), "x</s>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    for text in ("a b", "<s>a</s> b <s> b", "a<s><s>b<m>  a</s>", "ax</s>b</s> ", ""):
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert encode_prompt(tokenizer, [{"role": "user", "content": text}]) == whole


def test_full_trains_every_token_up_to_the_last_stop(tokenizer):
    last = encode(tokenizer, CONVERSATION)
    row = encode_rows(tokenizer, [{"messages": CONVERSATION}], train_on="full")[0].rows[0]
    assert row["input_ids"] == row["labels"] == last["input_ids"]


def test_plain_text_gets_the_bos_that_the_tokenizer_uses_and_an_eos(tokenizer):
    row = encode_rows(tokenizer, [{"text": "a\nb"}])[0].rows[0]
    assert row["input_ids"] == [*tokenizer("a\nb")["input_ids"], tokenizer.eos_token_id]
    trained = [label for label in row["labels"] if label != -100]
    assert tokenizer.decode(trained[:-1]) == "a\nb" and trained[-1] == tokenizer.eos_token_id


def test_many_at_once_are_the_same_as_one_by_one(tokenizer):
    rows = [{"messages": CONVERSATION}, {"text": "x"}, {"messages": CONVERSATION[:3]}]
    for train_on in ("last", "all", "full"):
        together = encode_rows(tokenizer, rows, train_on=train_on)
        assert together == [encode_rows(tokenizer, [row], train_on=train_on)[0] for row in rows]


def test_a_prompt_that_is_no_prefix_is_refused_or_counted():
    tokenizer = load_tokenizer("tiny-qwen3")
    # The reasoning model's template: the prompt opens a block that no answer continues.
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    rows = [{"messages": CONVERSATION}]
    with pytest.raises(DataError, match="not a prefix"):
        encode_rows(tokenizer, rows, train_on="all")
    encoded = encode_rows(tokenizer, rows, train_on="all", on_mismatch="common_prefix")[0]
    assert encoded.mismatches == 2 and len(encoded.rows) == 1
    assert [tokenizer.decode(span[:-1]) for span in spans(encoded.rows[0])] == ANSWERS


def test_a_seam_that_the_tokenizer_merges_across_is_counted():
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate(["<unk>", "h", "o", "w", "ow", "</s>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[("o", "w")], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{% endfor %}"
    )
    rows = [{"messages": [{"role": "user", "content": "ho"}, {"role": "assistant", "content": "w"}]}]
    with pytest.raises(DataError, match="they part at token 1"):
        encode_rows(tokenizer, rows)
    encoded = encode_rows(tokenizer, rows, on_mismatch="common_prefix")[0]
    assert encoded.mismatches == 1 and encoded.rows[0]["labels"] == [-100, 4, 5]


def test_an_unknown_way_of_training_is_refused(tokenizer):
    with pytest.raises(ConfigError, match="train_on must be one of"):
        encode_rows(tokenizer, [], train_on="some")


def trl_template(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


TRL = [
    ("llama3", "llama3"),
    ("qwen3", "qwen3"),
    ("qwen3-moe", "qwen3"),
    ("gemma3", "gemma3"),
    ("deepseek-v3", "deepseekv3"),
]


@pytest.mark.parametrize(("family", "name"), TRL)
@pytest.mark.parametrize("end", [3, 5])
def test_e7_1_e7_2_conversations_are_the_strings_that_trl_ships(family, name, end):
    tokenizer = load_tokenizer(f"tiny-{family}")
    ours = tokenizer.apply_chat_template(CONVERSATION[:end], tokenize=False)
    theirs = tokenizer.apply_chat_template(CONVERSATION[:end], tokenize=False, chat_template=trl_template(name))
    assert ours == theirs


@pytest.mark.parametrize(("family", "name"), TRL[:4])
def test_e7_2_prompts_are_the_strings_that_trl_ships(family, name):
    tokenizer = load_tokenizer(f"tiny-{family}")
    ours = render_prompt(tokenizer, CONVERSATION)
    tokenizer.chat_template = trl_template(name)
    assert ours == render_prompt(tokenizer, CONVERSATION)


@pytest.mark.parametrize("name", ["llama3_training", "gemma3_training", "qwen3_training", "qwen2_5_training"])
def test_the_mask_of_a_template_with_generation_markers_is_ours(name):
    """Templates that mark the answer themselves agree with the mask that is found without marks, but for the stop token
    that some leave out and we never do."""
    tokenizer = load_tokenizer(f"tiny-{name.split('_')[0].replace('qwen2', 'qwen3')}")
    tokenizer.chat_template = trl_template(name)
    messages = CONVERSATION[:3]
    theirs = tokenizer.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    row = encode_rows(tokenizer, [{"messages": messages}], train_on="all")[0].rows[0]
    marked = [i for i, on in enumerate(theirs["assistant_masks"]) if on]
    ours = [i for i, label in enumerate(row["labels"]) if label != -100]
    # Theirs may begin earlier (the empty think block, which is the prompt's) and end later (the newline behind).
    assert ours and row["input_ids"] == theirs["input_ids"][: len(row["input_ids"])]
    assert marked[0] <= ours[0] and marked[-1] >= ours[-1] - 1
    answer = tokenizer.decode([row["input_ids"][i] for i in ours][:-1])
    assert answer == ANSWERS[0]


def test_tool_turns_are_rendered_by_a_template_that_knows_them():
    tokenizer = load_tokenizer("tiny-qwen3")
    tokenizer.chat_template = trl_template("qwen3")
    call = {"type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
    messages = [
        {"role": "user", "content": "1 + 1?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": "It is 2."},
    ]
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    encoded = encode_rows(
        tokenizer, [{"messages": messages, "tools": tools}], train_on="all", on_mismatch="common_prefix"
    )[0]
    trained = [tokenizer.decode(span) for row in encoded.rows for span in spans(row)]
    assert any('"name": "add"' in text for text in trained) and trained[-1] == "It is 2.<|im_end|>"
    untrained = "".join(
        tokenizer.decode([i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label == -100])
        for row in encoded.rows
    )
    assert "<tools>" in untrained and "<tool_response>\n2\n</tool_response>" in untrained
    # generation is asked with the same tools
    prompt = encode_prompt(tokenizer, messages, tools)
    assert "<tools>" in tokenizer.decode(prompt)
    assert encode(tokenizer, messages, tools)["input_ids"][: len(prompt)] == prompt


def test_what_an_earlier_call_of_the_tokenizer_set_changes_nothing(tokenizer):
    before = encode(tokenizer, CONVERSATION)
    text = tokenizer.decode(before["input_ids"])
    tokenizer([text, "x"], truncation=True, max_length=3, padding=True)
    tokenizer(text, split_special_tokens=True)
    assert encode(tokenizer, CONVERSATION) == before
