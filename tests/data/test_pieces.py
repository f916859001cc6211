"""Encoding by remembered pieces gives what the tokenizer itself gives, whatever its pre-tokenizer."""

import pickle
import random
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from ftkit.data import pieces
from ftkit.data.chat import encode_rows
from ftkit.data.pieces import WORDS, Encoder
from ftkit.models.loading import load_tokenizer

LETTERS = ["a", "É", "ß", "ж", "中", "か", "한", "ع", "ा", "\u0301", "\u200d", "🙂", "Ⅷ", "²", "5", "٣", "İ"]
MARKS = [*"'.,!-_/<>|", "'s", "'LL", "…", "，", "\x00", "\ufffd"]
SPACES = [" ", " ", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "\u3000", "\u2028", "\x85", "\x1c", "\u200b", "\u180e"]
TOKENS = ["<|im_start|>", "<|im_end|>", "<think>", "<|im_start|>user\n", " <|im_end|>\n"]
PARTS = [*LETTERS, *MARKS, *SPACES, "word", " word", " 12"]
TEXT = st.lists(st.sampled_from(PARTS + TOKENS), max_size=25).map("".join)


def _split(pattern: str):
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def _byte_level(use_regex: bool = False, add_prefix_space: bool = False):
    return pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space, use_regex=use_regex)


KNOWN = {
    "GPT-2": _byte_level(use_regex=True),
    "SmolLM": pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), _byte_level(use_regex=True)]),
    **{name: pre_tokenizers.Sequence([_split(pattern), _byte_level()]) for name, pattern in WORDS.items()},
    "DeepSeek-V3": pre_tokenizers.Sequence(
        [*map(_split, (r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", WORDS["DeepSeek-V3"])), _byte_level()]
    ),
}
OTHERS = {
    "none": None,
    "bytes": _byte_level(),
    "a space in front": _byte_level(use_regex=True, add_prefix_space=True),
    "digits alone": pre_tokenizers.Sequence([_split(r"\p{N}{1,3}"), _byte_level()]),
    "words and the space after": pre_tokenizers.Sequence([_split(r"\S+\s*"), _byte_level()]),
    "spaces removed": pre_tokenizers.Split(Regex(WORDS["Llama 3"]), "removed"),
    "Metaspace": pre_tokenizers.Metaspace(),
}


@cache
def vocabulary() -> str:
    """Merges learnt from texts that are not cut at all: whatever stands together often is a token, across white space
    too, so that a word cut in another place has other ids."""
    rng, made = random.Random(0), Tokenizer(models.BPE())
    made.pre_tokenizer = _byte_level()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=3000, special_tokens=TOKENS[:2], initial_alphabet=alphabet)
    made.train_from_iterator(("".join(rng.choices(PARTS, k=20)) for _ in range(3000)), trainer)
    return made.to_str()


def tokenizer(pre_tokenizer, normalizer=None, tokens=("<think>",)) -> PreTrainedTokenizerFast:
    """That vocabulary, cut into words in this way, with further added tokens."""
    made = Tokenizer.from_str(vocabulary())
    made.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        made.normalizer = normalizer
    made.add_tokens(list(tokens))
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.fixture(scope="module", params=[*KNOWN, *OTHERS])
def both(request):
    made = tokenizer((KNOWN | OTHERS)[request.param])
    return request.param, made, Encoder(made)


def test_which_tokenizers_are_known_to_end_words_before_spaces(both):
    name, _, encoder = both
    assert encoder._cuts_words == (name in KNOWN)


@settings(max_examples=300)
@given(texts=st.lists(TEXT, min_size=1, max_size=4))
def test_the_ids_are_the_tokenizers(both, texts):
    _, made, encoder = both
    expected = [made(text, add_special_tokens=False)["input_ids"] for text in texts]
    assert encoder(texts) == expected and encoder(texts[::-1]) == expected[::-1]


@settings(max_examples=200)
@given(text=TEXT)
def test_nor_does_composing_characters_change_them(composing, text):
    made, encoder = composing
    assert encoder._cuts_words and encoder([text]) == [made(text, add_special_tokens=False)["input_ids"]]


@pytest.fixture(scope="module")
def composing():
    made = tokenizer(KNOWN["Qwen 2 and 3"], normalizers.NFC())
    return made, Encoder(made)


@pytest.mark.parametrize(
    "token",
    [
        AddedToken("two words"),
        AddedToken("<left>", lstrip=True),
        AddedToken("<right>", rstrip=True),
        AddedToken("<alone>", single_word=True),
    ],
    ids=str,
)
def test_added_tokens_that_reach_over_a_space_forbid_it(token):
    made = tokenizer(KNOWN["GPT-2"], tokens=[token])
    encoder, texts = Encoder(made), [f"a {token.content} b", f"a{token.content}b  {token.content}\n c", token.content]
    assert not encoder._cuts_words
    assert encoder(texts) == [made(text, add_special_tokens=False)["input_ids"] for text in texts]


def test_what_changes_the_text_forbids_it():
    assert not Encoder(tokenizer(KNOWN["GPT-2"], normalizers.Replace(" ", "▁")))._cuts_words
    random = tokenizer(KNOWN["GPT-2"])
    random.backend_tokenizer.model.dropout = 0.5
    assert not Encoder(random)._cuts_words


def test_words_are_remembered_long_ones_not_and_never_too_many(monkeypatch):
    monkeypatch.setattr(pieces, "_REMEMBERED", 50)
    made = tokenizer(KNOWN["GPT-2"])
    encoder = Encoder(made)
    texts = [" ".join(f"w{n}" for n in range(start, start + 30)) + " " + "long" * 100 for start in range(0, 120, 10)]
    for text in texts:
        assert encoder([text]) == [made(text, add_special_tokens=False)["input_ids"]]
        assert 0 < len(encoder._after_space) <= 50 and max(map(len, encoder._after_space)) < 10


def test_an_encoder_goes_to_another_process_with_what_it_knows():
    encoder = Encoder(load_tokenizer("embedded"))
    ids = encoder(["some words twice, some words"])
    copy = pickle.loads(pickle.dumps(encoder))
    assert copy(["some words twice, some words"]) == ids and copy._after_space == encoder._after_space


def test_rows_are_encoded_alike_with_an_encoder_that_met_others(tickets_rows):
    made = load_tokenizer("embedded")
    encoder = Encoder(made)
    for start in range(0, len(tickets_rows), 7):
        some = tickets_rows[start : start + 7]
        assert encode_rows(made, some, encoder=encoder) == encode_rows(made, some)


@pytest.fixture
def tickets_rows():
    from ftkit.data import load_data

    return [{"messages": row["messages"]} for row in load_data("tickets")["validation"]][:42]
