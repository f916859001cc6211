"""The instruction task that comes with ftkit: a customer's message in, one line of JSON with six fields out.

The task is small enough for a 135M-parameter model on a laptop, and it has exactly one right answer, so that a score
needs no judge: five fields are copied from the message, and the sixth is one of three words. The splits share no
name, city, product, issue, way of asking for contact, order number or template, so that the test split measures the
skill and not the memory. The files that come with ftkit, in `builtin/tickets`, are what `write` makes:

    python -m ftkit.data.tickets FOLDER
"""

import argparse
import json
import os
import random
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from ftkit.errors import ConfigError, DataError, near_matches

FIELDS = ("name", "city", "product", "order", "issue", "contact")

INSTRUCTION = (
    "Write this message as one line of JSON with the keys name, city, product, order, issue, contact "
    '(email, phone or chat). Copy values without "a", "the" or "my".'
)

# Rows and seed of each file that comes with ftkit.
SHIPPED = {"train": (640, 1), "validation": (96, 2), "test": (240, 3)}


def load_pools() -> dict[str, dict[str, Any]]:
    """The lists that messages are made of, by split: names, cities, goods, ways of asking for contact, templates."""
    file = resources.files("ftkit.data") / "builtin" / "tickets" / "pools.json"
    return json.loads(file.read_text(encoding="utf-8"))


def generate(split: str, n: int, seed: int) -> list[dict]:
    """Make `n` rows of a split, each `{"messages": [user turn, assistant turn]}`.

    The same arguments give the same rows. Names, cities, products, templates and the three kinds of contact are dealt
    like cards, so that each occurs equally often up to one; order numbers do not repeat. Two seeds of one split share
    its lists, so that a larger training set comes from a larger `n` or a further seed without touching the test split.

    Raises:
        ConfigError: there is no such split, or `n` is negative or more than the split has order numbers (36,000 in
            the smallest).
    """
    pools = load_pools()
    if split not in pools:
        raise ConfigError(
            f"There is no split {split!r}; the splits are {', '.join(pools)}.{near_matches(split, pools)}"
        )
    pool = pools[split]
    orders = [f"{letter}-{number}" for letter in pool["order_letters"] for number in range(1000, 10_000)]
    if not 0 <= n <= len(orders):
        raise ConfigError(f"The split {split!r} makes 0 to {len(orders):,} rows, not {n:,}.")

    rng = random.Random(seed)
    goods = [(product, group["issues"]) for group in pool["goods"] for product in group["products"]]
    drawn = zip(
        _deal(pool["templates"], n, rng),
        _deal(pool["first_names"], n, rng),
        _deal(pool["last_names"], n, rng),
        _deal(pool["cities"], n, rng),
        _deal(goods, n, rng),
        rng.sample(orders, n),
        _deal(list(pool["contact"].items()), n, rng),
        strict=True,
    )
    rows = []
    for template, first, last, city, (product, issues), order, (contact, phrases) in drawn:
        facts = dict(zip(FIELDS, (f"{first} {last}", city, product, order, rng.choice(issues), contact), strict=True))
        message = template.format(**facts | {"contact": rng.choice(phrases)})
        # Without blanks between the tokens of JSON the answer is a fifth shorter, and so is each training step.
        answer = json.dumps(facts, ensure_ascii=False, separators=(",", ":"))
        rows.append(_row(f"{INSTRUCTION}\n\n{message}", answer))
    return rows


def write(folder: str | os.PathLike) -> list[Path]:
    """Write `train.jsonl`, `validation.jsonl` and `test.jsonl` into `folder`, as they come with ftkit."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, (n, seed) in SHIPPED.items():
        path = folder / f"{split}.jsonl"
        part = path.with_suffix(".jsonl.part")
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in generate(split, n, seed))
        part.write_text("".join(lines), encoding="utf-8", newline="\n")
        os.replace(part, path)
        paths.append(path)
    return paths


def one_shot(row: dict, example: dict, style: Literal["turns", "inline"] = "turns") -> dict:
    """Put one worked example before the question of `row`: the fair baseline for a model that was not trained.

    Args:
        row: the row to be answered; it is not changed.
        example: a row of the train split.
        style: `"turns"` puts the example as an earlier exchange, the instruction standing in both user turns: default,
            because the embedded model then gets more fields right; `"inline"` puts instruction, example and message
            in one user turn: more answers are valid JSON, but many repeat the example.

    Raises:
        ConfigError: there is no such style.
    """
    if style == "turns":
        return {"messages": [*example["messages"], *row["messages"]]}
    if style == "inline":
        (question, answer), (shown, shown_answer) = (_contents(r) for r in (row, example))
        message, shown_message = (q.removeprefix(f"{INSTRUCTION}\n\n") for q in (question, shown))
        return _row(
            f"{INSTRUCTION}\n\nMessage: {shown_message}\nJSON: {shown_answer}\n\nMessage: {message}\nJSON:", answer
        )
    raise ConfigError(f"There is no style {style!r} of a one-shot prompt; the styles are 'turns' and 'inline'.")


def score(prediction: str, reference: str) -> dict[str, int]:
    """Compare one answer with the right one.

    Returns:
        `valid_json`: 1 if the whole prediction, stripped of surrounding white space, parses to a JSON object, else 0;
        `fields`: how many of the six fields hold exactly the reference's string, 0 to 6 (0 if not valid);
        `exact_match`: 1 if the parsed object equals the reference's: the same keys, no further ones, the same values.
        The order of keys and the white space between them do not count; capitals and accents do.

    Raises:
        DataError: the reference itself is not an object with the six fields.
    """
    right = _parse(reference)
    if right is None or set(right) != set(FIELDS):
        raise DataError(f"The reference answer is not a JSON object with the keys {', '.join(FIELDS)}: {reference!r}.")
    given = _parse(prediction)
    if given is None:
        return {"valid_json": 0, "fields": 0, "exact_match": 0}
    return {
        "valid_json": 1,
        "fields": sum(given.get(field) == right[field] for field in FIELDS),
        "exact_match": int(given == right),
    }


def _parse(text: str) -> dict | None:
    """The JSON object that `text` is, or None if it is anything else."""
    try:
        value = json.loads(text.strip())
    except (ValueError, RecursionError):  # a model that repeats "[" without end exhausts the parser's stack
        return None
    return value if isinstance(value, dict) else None


def _deal(cards: Sequence, n: int, rng: random.Random) -> list:
    """Draw `n` cards from a shuffled pack, with a new shuffled pack whenever one is used up."""
    dealt: list = []
    while len(dealt) < n:
        dealt += rng.sample(cards, len(cards))
    return dealt[:n]


def _row(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def _contents(row: dict) -> tuple[str, str]:
    question, answer = row["messages"]
    return question["content"], answer["content"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the three files of the ticket task as they come with ftkit.")
    parser.add_argument("folder", type=Path)
    for path in write(parser.parse_args().folder):
        print(path)
