r"""Ids of many texts, each distinct piece of them encoded once.

A tokenizer cuts a text at its added tokens and, by its pre-tokenizer, into words, and encodes each for itself. What
lies between two of its own cuts may therefore be encoded apart, and remembered. Two kinds of such places are used here:
before a special token and, under a pre-tokenizer that is known to cut there, before a space that follows anything but
white space.
"""

import json
import re
from array import array
from collections.abc import Iterable
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CONTRACTION = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_PREFIX = r"[^\r\n\p{L}\p{N}]?"
_ASCII_PUNCTUATION = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
# No match of these goes on from what is no white space to a space, none looks back, and each takes all white space:
# before such a space a word ends. GPT-2's is ByteLevel's own.
WORDS = {
    "Llama 3": rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "Qwen 2 and 3": rf"{_CONTRACTION}|{_PREFIX}\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}",
    "Llama 4": rf"{_PREFIX}{_UPPER}*{_LOWER}+{_CONTRACTION}?|{_PREFIX}{_UPPER}+{_LOWER}*{_CONTRACTION}?"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}",
    "DeepSeek-V3": rf"{_ASCII_PUNCTUATION}[A-Za-z]+|[^\r\n\p{{L}}\p{{P}}\p{{S}}]?[\p{{L}}\p{{M}}]+"
    rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_SPACES}",
}
# These leave spaces to the next expression.
_NO_SPACES = {r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+"}

# A space that follows white space or begins a piece ends no word for certain.
_IN_WHITE_SPACE = re.compile(r"\s ")
# The white space before a word, the word, and what follows it up to white space that begins with a space.
_WORD = re.compile(r"\s*\S+(?:[^\S ]\s*\S+)*(?:[^\S ]\s*\Z)?|\s+")
_REMEMBERED = 1 << 16  # words, some 10 MB
_SHORT = 32  # characters of a word that is likely to come again


class Encoder:
    """Gives the ids of texts, without further special tokens: those that the tokenizer itself gives.

    It remembers the words that it has met: one that lives long spares most of a tokenizer's work, which in English is
    the cutting into words. The tokenizer must not change meanwhile.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        self.tokenizer = tokenizer
        self._special = _special(tokenizer)
        self._cuts_words = _cuts_words(tokenizer)
        self._words, self._after_space = _Words(tokenizer, ""), _Words(tokenizer, " ")

    def __call__(self, texts: Iterable[str]) -> list[list[int]]:
        """The ids of each text."""
        _forget_calls(self.tokenizer)
        pieces = [self._pieces(text) for text in texts]
        distinct = list(dict.fromkeys(chain.from_iterable(pieces)))
        made = map(self._by_words, distinct) if self._cuts_words else _encoded(self.tokenizer, distinct)
        ids = dict(zip(distinct, made, strict=True))
        return [list(array("i", b"".join(map(ids.__getitem__, some)))) for some in pieces]

    def _pieces(self, text: str) -> list[str]:
        """The text cut before each special token."""
        if self._special is None:
            return [text]
        at = [0, *(match.start() for match in self._special.finditer(text)), len(text)]
        return [text[start:end] for start, end in pairwise(at) if start < end]

    def _by_words(self, piece: str) -> bytes:
        """The ids of a piece, int32."""
        if _IN_WHITE_SPACE.search(piece):
            return b"".join(map(self._words.__getitem__, _WORD.findall(piece)))
        first, *others = piece.split(" ")
        return self._words[first] + b"".join(map(self._after_space.__getitem__, others))


class _Words(dict[str, bytes]):
    """The ids, int32, of words with a `prefix`, encoded when they are first asked for."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", prefix: str) -> None:
        super().__init__()
        self.tokenizer, self.prefix = tokenizer, prefix

    def __missing__(self, word: str) -> bytes:
        encoding = self.tokenizer.backend_tokenizer.encode(self.prefix + word, add_special_tokens=False)
        ids = np.array(encoding.ids, dtype=np.int32).tobytes()
        if len(word) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[word] = ids
        return ids


def _encoded(tokenizer, texts: list[str]) -> list[bytes]:
    """The ids, int32, of texts, each of which the tokenizer sees whole."""
    if tokenizer.is_fast and not tokenizer.split_special_tokens:
        # What the tokenizer's own call does, without places and masks, which nobody asked for.
        encodings = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        made = [encoding.ids for encoding in encodings]
    else:
        options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
        made = tokenizer(texts, **options)["input_ids"] if texts else []
    return [np.array(ids, dtype=np.int32).tobytes() for ids in made]


def _forget_calls(tokenizer) -> None:
    """Switch off what an earlier call of the tokenizer may have left on."""
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = tokenizer.split_special_tokens


def _special(tokenizer) -> re.Pattern | None:
    """Finds the special tokens but those that take the white space beside them along."""
    added = tokenizer.added_tokens_decoder.values() if tokenizer.is_fast else ()
    tokens = [token.content for token in added if token.special and not (token.normalized or _takes_more(token))]
    return re.compile("|".join(sorted(map(re.escape, tokens), key=len, reverse=True))) if tokens else None


def _takes_more(token) -> bool:
    return token.lstrip or token.rstrip or token.single_word


def _cuts_words(tokenizer) -> bool:
    """Whether the tokenizer is known to end a word before a space that follows anything but white space."""
    if not tokenizer.is_fast or tokenizer.split_special_tokens:
        return False
    added = tokenizer.added_tokens_decoder.values()
    if any(_takes_more(token) or re.search(r"\s", token.content) for token in added):
        return False
    backend = tokenizer.backend_tokenizer
    normalizer, steps = (_settings(part) for part in (backend.normalizer, backend.pre_tokenizer))
    steps = steps.get("pretokenizers", [steps])
    random = getattr(backend.model, "dropout", None)
    return (
        normalizer in ({}, {"type": "NFC"})
        and not random
        and any(map(_ends_words, steps))
        and all(_ends_words(step) or _leaves_spaces(step) for step in steps)
    )


def _settings(part) -> dict[str, Any]:
    """What a normalizer or pre-tokenizer of the tokenizers library is."""
    return json.loads(part.__getstate__()) if part is not None else {}


def _ends_words(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return step["use_regex"] and not step["add_prefix_space"]
    return _isolates(step, WORDS.values())


def _leaves_spaces(step: dict[str, Any]) -> bool:
    if step.get("type") == "ByteLevel":
        return not step["use_regex"] and not step["add_prefix_space"]
    return step.get("type") == "Digits" or _isolates(step, _NO_SPACES)


def _isolates(step: dict[str, Any], patterns: Iterable[str]) -> bool:
    """Whether a step makes a word of each match of one of these."""
    whole = step.get("type") == "Split" and step["behavior"] == "Isolated" and not step["invert"]
    return whole and step["pattern"].get("Regex") in patterns
