"""Checks a reader's answers to the exercises on data preparation."""

from collections.abc import Callable

from ftkit.scratch.minhash import jaccard, shingles

IGNORE = -100


def check_labels(labels_of: Callable[[list[int], int, int], list[int]]) -> str:
    """Check `labels_of(input_ids, start, length)`, the labels of one padded row.

    Args:
        labels_of: takes the ids of a row that was padded on the right, where its answer begins, and how many ids it
            had before padding; returns one label for each id.

    Returns:
        "Right: ..." or "Not yet: ...", the latter with the first thing that is wrong.
    """
    stop = 2
    # prompt, answer, padding; in the second and third the padding is the very token that ends the turn
    for prompt, answer, pad, width in (([5, 6], [7, 8, stop], 0, 5), ([5], [7, stop], stop, 6), ([2, 9], [stop], 2, 4)):
        ids = prompt + answer + [pad] * (width - len(prompt) - len(answer))
        wanted = [IGNORE] * len(prompt) + answer + [IGNORE] * (width - len(prompt) - len(answer))
        given, wrong = _call(labels_of, list(ids), len(prompt), len(prompt) + len(answer))
        if wrong:
            return wrong
        if given == wanted:
            continue
        if not isinstance(given, list) or len(given) != width:
            return f"Not yet: {width} ids need a list of {width} labels, not {given!r}."
        places = [i for i in range(width) if given[i] != wanted[i]]
        hints = {
            "the prompt is trained": places[0] < len(prompt),
            "the token that ends the answer is not trained": given[len(prompt) + len(answer) - 1] == IGNORE,
            "padding is trained; its place says that it is padding, its id does not": places[-1]
            >= len(prompt) + len(answer),
        }
        hint = next((text for text, holds in hints.items() if holds), f"the label at {places[0]} is another token")
        return f"Not yet: for ids {ids}, answer from {len(prompt)} and padding {pad}, {hint}."
    return "Right: the answer and its end are trained, and no padding, whatever its id."


def check_similarity(similarity: Callable[[str, str], float]) -> str:
    """Check `similarity(a, b)`, the Jaccard similarity of two texts' sets of character 5-grams.

    Args:
        similarity: takes two texts of at least 5 characters, in lower case and single-spaced.
    """
    cases = ("a cat sat on a mat", "a cat sat on the mat"), ("aaaaaaaaaa", "aaaaaa"), ("hello world", "other words")
    for a, b in cases:
        given, wrong = _call(similarity, a, b)
        if wrong:
            return wrong
        A, B = shingles(a), shingles(b)
        if isinstance(given, int | float) and abs(given - jaccard(A, B)) < 1e-9:
            continue
        hint = ""
        if given == len(A & B) / min(len(A), len(B)):
            hint = " That is how much of the smaller set lies in the other; divide by the union."
        elif given == len(A & B):
            hint = " That is how many they share; divide by the union."
        return f"Not yet: {a!r} and {b!r} have similarity {jaccard(A, B):.3f}, not {given!r}.{hint}"
    return "Right: shared 5-grams over all 5-grams."


def check_pack(pack: Callable[[list[list[int]]], tuple[list[int], list[int], list[int]]]) -> str:
    """Check `pack(rows)`, which joins rows that are trained in full into one.

    Args:
        pack: takes lists of ids; returns `input_ids`, `labels` and `position_ids` of the packed row.
    """
    for rows in ([[5, 6, 7], [8, 9]], [[4]], [[1, 2], [3], [4, 5, 6]]):
        given, wrong = _call(pack, [list(row) for row in rows])
        if wrong:
            return wrong
        wanted = (
            [token for row in rows for token in row],
            [label for row in rows for label in [IGNORE, *row[1:]]],
            [place for row in rows for place in range(len(row))],
        )
        if not isinstance(given, tuple | list) or len(given) != 3:
            return "Not yet: pack must return input_ids, labels and position_ids."
        hints = "the rows one after the other", "no target at a border", "begin again at 0 with each row"
        for name, mine, yours, hint in zip(("input_ids", "labels", "position_ids"), wanted, given, hints, strict=True):
            if list(yours) != mine:
                return f"Not yet: for {rows} the {name} are {mine} ({hint}), not {list(yours)}."
    return "Right: positions begin again and no token is predicted from another row."


def _call(function: Callable, *arguments) -> tuple:
    """(what it returned, None), or (None, what went wrong)."""
    try:
        return function(*arguments), None
    except Exception as error:  # a reader's code may fail in any way
        return None, f"Not yet: your function raised {type(error).__name__}: {error}."
