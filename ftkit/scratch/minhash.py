"""Near-duplicates from first principles: texts as sets, their minima under random orders, and bands that find pairs."""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np

PRIME = 2**31 - 1


def shingles(text: str, n: int = 5) -> set[str]:
    """All runs of `n` characters; capitals, width forms and runs of white space do not count."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split()).ljust(n)
    return {text[i : i + n] for i in range(len(text) - n + 1)}


def jaccard(a: set, b: set) -> float:
    """What two sets share, of all that they hold."""
    return len(a & b) / len(a | b)


def signature(items: set[str], k: int, seed: int) -> np.ndarray:
    """The smallest item of the set under each of `k` random orders, (k,) int64.

    An order is a hash function (a x + b) mod p. Two sets have the same smallest
    item with probability `jaccard`.
    """
    a, b = np.random.default_rng(seed).integers(1, PRIME, (2, k, 1))
    x = np.array([number(item) for item in items])
    return ((a * x + b) % PRIME).min(axis=1)


def number(item: str) -> int:
    """A number below `PRIME` that is always the same for the same text."""
    return int.from_bytes(hashlib.blake2b(item.encode(), digest_size=4).digest()) % PRIME


def found(s: float, bands: int, rows: int) -> float:
    """Probability that two sets of similarity `s` agree in all rows of at least one band."""
    return 1 - (1 - s**rows) ** bands


def candidates(signatures: Sequence[np.ndarray], bands: int, rows: int) -> set[tuple[int, int]]:
    """Pairs, the smaller index first, that agree in all rows of at least one band."""
    pairs = set()
    for band in range(bands):
        buckets = defaultdict(list)
        for i, minima in enumerate(signatures):
            buckets[minima[band * rows : (band + 1) * rows].tobytes()].append(i)
        for bucket in buckets.values():
            pairs.update(combinations(bucket, 2))
    return pairs


def similar(texts: Sequence[str], threshold: float, bands: int = 20, rows: int = 6, seed: int = 0) -> list[tuple]:
    """Pairs of texts whose similarity is at least `threshold`: candidates by bands, each then compared exactly."""
    sets = [shingles(text) for text in texts]
    pairs = candidates([signature(s, bands * rows, seed) for s in sets], bands, rows)
    return sorted((i, j) for i, j in pairs if jaccard(sets[i], sets[j]) >= threshold)
