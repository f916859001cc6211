r"""Exact duplicates, near-duplicates by MinHash, and overlap with a test set by n-grams.

Texts are compared by their sets of character 5-grams, which exist in every script, after capitals, width forms and
runs of white space were made equal. For two such sets the Jaccard similarity is :math:`J = |A \cap B| / |A \cup B|`.
MinHash (Broder, 1997) keeps k numbers a text, each equal in two texts with probability J; cut into b bands of r,
two texts share a band with probability :math:`1 - (1 - J^r)^b`: here 0.998 at J = 0.8 and 0.27 at J = 0.5. The pairs
that share one are then compared exactly, so that what is reported has at least the similarity that was asked for.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np

SHINGLE = 5
"""Characters of an n-gram for near-duplicates."""
BANDS, BAND_ROWS = 20, 6
SIGNATURE = BANDS * (4 + BAND_ROWS)
"""Bytes that are kept of a text while near-duplicates are looked for."""
CONTAMINATION_NGRAM = 50
"""Characters, without spaces and punctuation, of an n-gram for test-set overlap, as in the GPT-4 report (arXiv
2303.08774, appendix C)."""
CONTAMINATION_SHARE = 0.5
"""Share of a test text's n-grams that a training text must hold to count as having seen it."""
BOILERPLATE = 10
"""An n-gram in more texts than this (an instruction that rows share) says nothing about any of them."""

_BATCH = 2000
_LOOK_BACK = 3  # rows of one bucket are compared with so many before them and with its first: linear in the rows
_NOT_WORD = re.compile(r"[\W_]+")
_ASCII_NOT_WORD = bytes(c for c in range(128) if not chr(c).isalnum())
_BASE = 0x100000001B3


def exact_keys(texts: Iterable[str]) -> np.ndarray:
    """A 64-bit fingerprint a text, (texts,) uint64. Two different ones among a million agree with probability 3e-8."""
    digests = b"".join(hashlib.blake2b(t.encode(errors="surrogatepass"), digest_size=8).digest() for t in texts)
    return np.frombuffer(digests, dtype=np.uint64)


def first_of_each(keys: np.ndarray) -> np.ndarray:
    """For each key the index at which it stands first, (keys,) int64; a row is a repeat where that is not its own."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first[inverse]


def near_duplicates(
    texts_at: Callable[[Sequence[int]], list[str]],
    count: int,
    *,
    threshold: float = 0.8,
    seed: int = 42,
    progress: bool = False,
) -> np.ndarray:
    """Pairs of texts whose Jaccard similarity is at least `threshold`.

    Args:
        texts_at: gives the texts at some indices, so that they can stay on disk; ascending indices, 0 to `count` - 1.
        count: how many texts there are.
        threshold: between 0.5 and 1. Below 0.8 more and more pairs are missed.
        seed: of the hash functions; the same seed gives the same pairs.
        progress: draw a bar on stderr.

    Returns:
        (pairs, 2) int64, the smaller index first. Of a large bucket of similar texts not all pairs are looked at, but
        each text is compared with its neighbours there; memory is 200 bytes a text.
    """
    from tqdm.std import tqdm

    signed = np.empty((count, SIGNATURE), dtype=np.uint8)
    with tqdm(total=count, desc="near-duplicates", unit="row", disable=not progress) as bar:
        for start in range(0, count, _BATCH):
            part = range(start, min(start + _BATCH, count))
            signed[part.start : part.stop] = signatures(texts_at(part), seed)
            bar.update(len(part))
    return similar_pairs(texts_at, signed, threshold=threshold)


def signatures(texts: Sequence[str], seed: int) -> np.ndarray:
    """What `similar_pairs` compares texts by, (texts, `SIGNATURE`) uint8: the bucket of each band as four bytes, then
    the low byte of each minimum."""
    from rensa import RMinHash

    k = BANDS * BAND_ROWS
    odd = _mix(np.arange(1, BAND_ROWS + 1, dtype=np.uint64)) | np.uint64(1)
    hashes, starts = _ngrams([_normal(text) for text in texts], SHINGLE)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, starts.astype(np.uint64), num_perm=k, seed=seed)
    rows = np.array(matrix.to_rows(), dtype=np.uint64).reshape(len(texts), k)
    mixed = _mix((rows.reshape(len(texts), BANDS, BAND_ROWS) * odd).sum(axis=2))
    buckets = (mixed >> np.uint64(32)).astype("<u4")
    return np.concatenate([buckets.view(np.uint8), (rows & np.uint64(0xFF)).astype(np.uint8)], axis=1)


def similar_pairs(
    texts_at: Callable[[Sequence[int]], list[str]],
    signed: np.ndarray,
    *,
    threshold: float = 0.8,
    bands: Iterable[int] = range(BANDS),
) -> np.ndarray:
    """As `near_duplicates`, from the `signatures` of all texts; of some `bands` alone, what these find."""
    count = len(signed)
    small = signed[:, 4 * BANDS :]
    checked = np.empty(0, dtype=np.int64)
    found = []
    for band in bands:
        buckets = np.ascontiguousarray(signed[:, 4 * band : 4 * band + 4]).view("<u4")[:, 0]
        pairs = np.setdiff1d(_bucket_pairs(buckets), checked, assume_unique=True)
        # An estimate from one byte a number (b-bit MinHash, Li and König, arXiv 0910.3349) spares most comparisons;
        # three and a half standard errors below the threshold it loses next to nothing.
        slack = 3.5 * np.sqrt(threshold * (1 - threshold) / small.shape[1]) + 0.01
        likely = pairs[_estimate(small, pairs, count) >= threshold - slack]
        checked = np.union1d(checked, likely)
        for start in range(0, len(likely), _BATCH):
            found.append(_verified(texts_at, likely[start : start + _BATCH], count, threshold))
    codes = np.unique(np.concatenate(found)) if found else np.empty(0, dtype=np.int64)
    return np.stack([codes // max(count, 1), codes % max(count, 1)], axis=1)


def drop_near(pairs: np.ndarray, count: int) -> np.ndarray:
    """Which texts stay, (count,) bool: going up, a text goes when it pairs with an earlier one that stays."""
    keep = np.ones(count, dtype=bool)
    for earlier, later in pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]:
        if keep[earlier]:
            keep[later] = False
    return keep


def kept_and_groups(
    same: np.ndarray, prompt: np.ndarray, pairs: np.ndarray, deduplicate: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which rows stay, (rows,) bool, and the group of each, (rows,) int64, whose rows belong into one split.

    Args:
        same, prompt: for each row the first that is equal to it, and the first that asks the same, (rows,).
        pairs: of rows that are alike, (pairs, 2).
        deduplicate: whether any goes.
    """
    count = len(same)
    every = np.arange(count)
    keep = (same == every) & drop_near(pairs, count) if deduplicate else np.ones(count, dtype=bool)
    links = np.concatenate([np.stack([prompt, every], axis=1), pairs])
    return keep, groups(links[links[:, 0] != links[:, 1]], count)


def groups(pairs: np.ndarray, count: int) -> np.ndarray:
    """The smallest index that each text is connected to by pairs, (count,) int64."""
    parent = np.arange(count)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for a, b in pairs:
        a, b = root(a), root(b)
        parent[max(a, b)] = min(a, b)
    while not np.array_equal(parent, above := parent[parent]):
        parent = above
    return parent


def contaminated(texts: Sequence[str], references: Sequence[str], n: int = CONTAMINATION_NGRAM) -> np.ndarray:
    """Which texts hold a test text, (texts,) bool.

    A text holds a reference when at least half of what the reference has of its own occurs in it, counted in n-grams of
    letters and digits. An n-gram that stands in more than `BOILERPLATE` different texts, of either kind, is nobody's
    own. A reference that has nothing of its own must stand there whole, and so must one shorter than `n`, as the whole
    text.
    """
    held_out = HeldOut(references, n=n)
    for some in (references, texts):
        for begin in range(0, len(some), _BATCH):
            held_out.count(some[begin : begin + _BATCH])
    hit = np.zeros(len(texts), dtype=bool)
    for begin in range(0, len(texts), _BATCH):
        hit[begin + held_out.pairs(texts[begin : begin + _BATCH])[:, 0]] = True
    return hit


class HeldOut:
    """Texts, cut into n-grams once, to ask many others which of them they hold; see `contaminated`.

    All texts are counted before any is asked for: `count` learns which n-grams many share, `pairs` tells what is held.
    Memory is 20 bytes an n-gram of the references, at most 8 more for a table that spares most of the search, and a
    number for each prompt that shares an n-gram with one.

    Args:
        references: the texts that are looked for. They count too, by a call of `count`.
        asked: for each whether it is a prompt. Equal prompts count as one text, and a prompt without anything of its
            own is held by what holds it whole. Answers count each time, and one that more than `BOILERPLATE` rows share
            is a label that says nothing of any of them. Default: all are prompts.

    Attributes:
        number: of each reference, (references,) int64: equal prompts have one number and equal answers another, and a
            text without a letter, digit or sign has -1.
    """

    def __init__(
        self, references: Sequence[str], asked: Sequence[bool] | None = None, n: int = CONTAMINATION_NGRAM
    ) -> None:
        self.n = n
        known: dict[tuple[str, bool], int] = {}
        texts = zip(map(_letters, references), asked or [True] * len(references), strict=True)
        self.number = np.array([known.setdefault(t, len(known)) if t[0] else -1 for t in texts], dtype=np.int64)
        self._letters = [text for text, _ in known]
        self._asked = np.array([prompt for _, prompt in known], dtype=bool)
        found = []
        for begin in range(0, len(known), _BATCH):
            grams, starts = _ngrams(self._letters[begin : begin + _BATCH], n)
            owner = np.repeat(np.arange(begin, begin + len(starts) - 1), np.diff(starts))
            order = np.lexsort((owner, grams))
            grams, owner = grams[order], owner[order]
            new = np.ones(len(grams), dtype=bool)
            new[1:] = (grams[1:] != grams[:-1]) | (owner[1:] != owner[:-1])
            found.append((grams[new], owner[new].astype(np.int32)))
        grams = np.concatenate([np.empty(0, dtype=np.uint64), *(grams for grams, _ in found)])
        owner = np.concatenate([np.empty(0, dtype=np.int32), *(owner for _, owner in found)])
        del found  # each step lets go of what the next does not need: these are the largest arrays there are
        order = np.argsort(grams, kind="stable")
        self._owner = owner[order]
        del owner
        grams = grams[order]
        del order
        new = np.ones(len(grams), dtype=bool)
        np.not_equal(grams[1:], grams[:-1], out=new[1:])
        self._grams = grams[new]
        self._ends = np.full(len(self._grams) + 1, len(grams), dtype=np.int32 if len(grams) < 2**31 else np.int64)
        del grams
        self._ends[:-1] = np.flatnonzero(new)
        self._texts = np.zeros(len(self._grams), dtype=np.int32)
        self._seen: set[int] = set()
        # One bit for each of 32 to 64 times as many buckets as there are n-grams: set where one of them falls.
        self._shift = np.uint64(64 - max(10, (32 * len(self._grams)).bit_length()))
        self._maybe = np.zeros(1 << (61 - int(self._shift)), dtype=np.uint8)
        for bit in range(8):
            bucket = self._grams >> self._shift
            self._maybe[bucket[bucket & np.uint64(7) == bit] >> np.uint64(3)] |= 1 << bit

    def count(self, texts: Sequence[str], asked: Sequence[bool] | None = None) -> np.ndarray:
        """Count texts, and say which share an n-gram with a reference, ascending: no other can hold one."""
        return self.add(*self.sharing(texts, asked))

    def sharing(
        self, texts: Sequence[str], asked: Sequence[bool] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What `add` has to know of some texts, to be found in any process: which of them share which n-gram with the
        references, (shared,) each, which of these are prompts, and a key of each prompt."""
        letters = list(map(_letters, texts))
        reader, gram = self._shared(letters)
        touched = np.unique(reader)
        prompts = touched if asked is None else touched[np.asarray(asked, dtype=bool)[touched]]
        return reader, gram, prompts, exact_keys([letters[i] for i in prompts.tolist()])

    def add(self, reader: np.ndarray, gram: np.ndarray, prompts: np.ndarray, keys: np.ndarray) -> np.ndarray:
        """Count texts by what `sharing` found; those that share anything, ascending."""
        again = np.zeros(len(keys), dtype=bool)
        for i, key in enumerate(keys.tolist()):
            again[i] = key in self._seen
            self._seen.add(key)
        np.add.at(self._texts, gram[~np.isin(reader, prompts[again])], 1)
        return np.unique(reader)

    def settle(self) -> None:
        """Work out what `pairs` needs, once all is counted: before a fork, so that it happens once."""
        _ = self._own, self._bare

    @cached_property
    def _own(self) -> tuple[np.ndarray, np.ndarray]:
        """Which n-grams are some reference's own, and how many each reference has, after all is counted."""
        own = self._texts <= BOILERPLATE
        sizes = np.bincount(self._owner[np.repeat(own, np.diff(self._ends))], minlength=len(self._letters))
        return own, sizes

    @cached_property
    def _bare(self) -> tuple[np.ndarray, dict[str, list[int]], dict[str, int]]:
        """The prompts with nothing of their own: which n-grams begin one, the lengths of those that begin with the same
        letters, and the number of each."""
        numbers = np.flatnonzero(self._asked & (self._own[1] == 0)).tolist()
        lengths: dict[str, set[int]] = {}
        for number in numbers:
            lengths.setdefault(self._letters[number][: self.n], set()).add(len(self._letters[number]))
        begins = np.zeros(len(self._grams), dtype=bool)
        begins[np.searchsorted(self._grams, _ngrams(list(lengths), self.n)[0])] = True
        named = {self._letters[number]: number for number in numbers}
        return begins, {begin: sorted(some) for begin, some in lengths.items()}, named

    def pairs(self, texts: Sequence[str]) -> np.ndarray:
        """Which of `texts` hold which reference, by its `number`: (pairs, 2) int64, ascending."""
        letters = list(map(_letters, texts))
        reader, gram = self._shared(letters)
        own, sizes = self._own
        opening, lengths, named = self._bare
        whole = {
            i * len(sizes) + named[part]
            for i in np.unique(reader[opening[gram]]).tolist()
            for start in range(len(letters[i]) - self.n + 1)
            for length in lengths.get(letters[i][start : start + self.n], ())
            if (part := letters[i][start : start + length]) in named
        }
        reader, gram = reader[own[gram]], gram[own[gram]]
        times = self._ends[gram + 1] - self._ends[gram]
        at = np.repeat(self._ends[gram] - np.cumsum(times) + times, times) + np.arange(times.sum())
        code = np.sort(np.repeat(reader, times) * len(sizes) + self._owner[at])
        begins = np.flatnonzero(np.diff(code, prepend=-1))
        code, shared = code[begins], np.diff(begins, append=len(code))
        code = code[shared >= CONTAMINATION_SHARE * sizes[code % max(len(sizes), 1)]]
        code = np.union1d(code, np.array(sorted(whole), dtype=np.int64)).astype(np.int64)
        return np.stack([code // max(len(sizes), 1), code % max(len(sizes), 1)], axis=1)

    def _shared(self, letters: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Texts with the references' n-grams that stand in them, each once: indices of both."""
        seen, starts = _ngrams(letters, self.n)
        bucket = seen >> self._shift
        likely = np.flatnonzero(self._maybe[bucket >> np.uint64(3)] >> (bucket & np.uint64(7)).astype(np.uint8) & 1)
        gram = np.searchsorted(self._grams, seen[likely])
        gram = np.minimum(gram, len(self._grams) - 1)
        held = self._grams[gram] == seen[likely] if len(self._grams) else np.zeros(len(likely), dtype=bool)
        reader = np.searchsorted(starts, likely[held], side="right") - 1
        code = np.sort(reader * max(len(self._grams), 1) + gram[held])  # faster than np.unique
        code = code[np.diff(code, prepend=-1) != 0]
        return code // max(len(self._grams), 1), code % max(len(self._grams), 1)


def _normal(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text.encode(errors="replace").decode())
    return " ".join(text.casefold().split())


def _letters(text: str) -> str:
    """Letters and digits alone, made equal as in `_normal`; of a text that has none, all there is."""
    if text.isascii():
        return text.lower().encode().translate(None, _ASCII_NOT_WORD).decode() or _normal(text)
    normal = _normal(text)
    return _NOT_WORD.sub("", normal) or normal


def _ngrams(texts: Sequence[str], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all character n-grams, text after text, and where each text's begin (texts + 1). A text shorter than n
    has one: itself."""
    texts = [text.ljust(n) for text in texts]
    lengths = np.fromiter(map(len, texts), dtype=np.int64, count=len(texts))
    starts = np.concatenate([[0], np.cumsum(lengths - n + 1)])
    chars = np.frombuffer("".join(texts).encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    if not len(chars):
        return np.empty(0, dtype=np.uint64), starts
    rolled, width, factor = chars, 1, _BASE
    for digit in f"{n:b}"[1:]:  # windows double, and grow by one where n's next binary digit says so
        rolled = rolled[:-width] * np.uint64(factor) + rolled[width:]
        width, factor = 2 * width, factor * factor % 2**64
        if digit == "1":
            rolled = rolled[:-1] * np.uint64(_BASE) + chars[width:]
            width, factor = width + 1, factor * _BASE % 2**64
    # Windows that reach into the next text are left out: n - 1 behind each.
    at = np.arange(starts[-1]) + np.repeat(np.arange(len(texts)) * (n - 1), np.diff(starts))
    return _mix(rolled[at]), starts


def _mix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: nearby inputs become far-apart outputs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _bucket_pairs(band: np.ndarray) -> np.ndarray:
    """Codes (first * count + second) of pairs in one bucket: each text with those just before it and with the first."""
    count = len(band)
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    new = np.concatenate([[True], ordered[1:] != ordered[:-1]])
    first = np.maximum.accumulate(np.where(new, np.arange(count), 0))
    inside = np.flatnonzero(~new)
    codes = [order[first[inside]] * count + order[inside]]
    for back in range(1, _LOOK_BACK + 1):
        reach = inside[inside - back > first[inside]]
        codes.append(order[reach - back] * count + order[reach])
    return np.unique(np.concatenate(codes))


def _estimate(small: np.ndarray, pairs: np.ndarray, count: int) -> np.ndarray:
    matches = np.empty(len(pairs))
    for start in range(0, len(pairs), 50_000):
        part = pairs[start : start + 50_000]
        matches[start : start + len(part)] = (small[part // count] == small[part % count]).mean(axis=1)
    return (matches - 1 / 256) / (1 - 1 / 256)


def _verified(texts_at, pairs: np.ndarray, count: int, threshold: float) -> np.ndarray:
    wanted = np.unique(np.concatenate([pairs // count, pairs % count]))
    hashes, starts = _ngrams([_normal(t) for t in texts_at(wanted.tolist())], SHINGLE)
    sets = {row: np.unique(hashes[starts[i] : starts[i + 1]]) for i, row in enumerate(wanted.tolist())}
    similar = []
    for code in pairs.tolist():
        a, b = sets[code // count], sets[code % count]
        shared = len(np.intersect1d(a, b, assume_unique=True))
        similar.append(shared >= threshold * (len(a) + len(b) - shared))
    return pairs[np.array(similar, dtype=bool)]
