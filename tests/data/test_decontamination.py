"""What was prepared holds no training row that the doctor would object to, whatever rows came in."""

import json
import random
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.data import doctor
from ftkit.data.decontamination import kept_apart, leaking, overlaps
from ftkit.data.duplicates import HeldOut, contaminated
from ftkit.data.sources import SPLITS
from ftkit.data.table import arrays


def words(seed: int, count: int, letters: str = "abcdefgh") -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(letters, k=6)) for _ in range(count))


BLOCKS = [words(i, 14) for i in range(9)]
"""Texts of 84 letters; a row of several holds each of them whole, at a Jaccard similarity far below 0.8."""
TEXTS = st.lists(st.integers(0, len(BLOCKS) - 1), min_size=1, max_size=4).map(
    lambda at: " ".join(BLOCKS[i] for i in at)
)
LABELS = [f"This message is about {name}. " + words(i, 15, "xyz") for i, name in enumerate(("billing", "delivery"))]
SHORT = st.sampled_from(["Yes.", "no", "OK?", "?", "\U0001f642", "Hello", "2 + 2", "2+2"])


def turns(*contents: str) -> dict:
    roles = ["user", "assistant"] * len(contents)
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=False)]}


ROWS = st.one_of(
    TEXTS.map(lambda text: {"text": text}),
    TEXTS.map(lambda text: turns(text, "Yes.")),
    TEXTS.map(lambda text: turns(f"Say {text[:9]}", text)),
    st.tuples(TEXTS, TEXTS, SHORT).map(lambda t: turns(t[0], "Go on.", t[1], t[2])),
    st.tuples(SHORT, SHORT).map(lambda t: turns(*t)),
    st.tuples(st.integers(0, 999), st.sampled_from(LABELS)).map(lambda t: turns(words(t[0], 20, "klmnop"), t[1])),
    st.integers(0, 999).map(lambda i: turns(f"{LABELS[0]} {words(i, 2)}", str(i))),
    st.tuples(TEXTS, SHORT).map(
        lambda t: {"messages": [{"role": "system", "content": BLOCKS[0]}, *turns(t[1], t[0])["messages"]]}
    ),
)


def distinct(i: int) -> dict:
    return turns(f"Number {i}?", words(i + 1000, 15, "ijklmnop"))


def prepared(source, folder, **other):
    config = {"model_name": "tiny-qwen3", "num_proc": 1, "train_split": 0.6, "val_split": 0.2, "test_split": 0.2}
    pipeline = DataPreparationPipeline(DataConfig(**config | other), progress=False)
    return pipeline, pipeline.run_pipeline(source, folder)


def objections(folder) -> set[str]:
    return {f.check for f in doctor(folder, "tiny-qwen3").findings} & {"validation_overlap", "test_overlap"}


def account_for(pipeline, splits, read: int) -> None:
    report = pipeline.report
    assert report.read == read == report.kept + sum(report.dropped.values())
    assert report.kept == len({(split, row["where"]) for split, some in splits.items() for row in some})


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(ROWS, max_size=40),
    st.sampled_from(["last", "all"]),
    st.booleans(),
    st.integers(0, 5),
)
def test_the_doctor_finds_no_overlap_in_what_was_split(rows, train_on, deduplicate, seed):
    rows = [*map(distinct, range(12)), *rows]
    other = {"train_on": train_on, "deduplicate": deduplicate, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        pipeline, splits = prepared(rows, Path(folder) / "out", **other)
        account_for(pipeline, splits, len(rows))
        assert not {"overlaps a held-out row", "overlaps the test set"} & set(pipeline.report.dropped)
        assert all(len(split) for split in splits.values())
        assert not objections(Path(folder) / "out")
        _, again = prepared(rows, Path(folder) / "again", **other)
        assert all(list(again[split]) == list(splits[split]) for split in splits)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, max_size=30), st.lists(ROWS, max_size=6), st.lists(ROWS, max_size=6), st.booleans())
def test_given_splits_lose_what_overlaps_from_the_training_rows_and_never_a_test_row(train, validation, test, dedupe):
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder) / "rows", {}
        source.mkdir()
        for i, (split, some) in enumerate(zip(SPLITS, (train, validation, test), strict=True)):
            made[split] = [*some, *(distinct(100 * i + k) for k in range(4))]
            (source / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made[split]))
        pipeline, splits = prepared(source, Path(folder) / "out", deduplicate=dedupe)
        account_for(pipeline, splits, sum(map(len, made.values())))
        if not dedupe:
            assert len({row["where"] for row in splits["test"]}) == len(made["test"])
        assert not objections(Path(folder) / "out")


TABLES = st.lists(st.tuples(ROWS, st.integers(0, 2)), max_size=40)


def table_of(rows: list[dict]) -> Dataset:
    return Dataset.from_dict({"where": list(map(str, range(len(rows))))} | arrays(rows))


def leaks(rows: Dataset, side: np.ndarray) -> np.ndarray:
    """Rows that hold a text of a later split."""
    made, found = np.zeros(len(side), dtype=bool), overlaps(rows, side)
    made[found[side[found[:, 0]] < found[:, 1], 0]] = True
    return made


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_rows_are_kept_apart_or_left_out_until_nothing_overlaps(placed):
    rows, side = table_of([row for row, _ in placed]), np.array([split for _, split in placed], dtype=np.int64)
    group = np.arange(len(side)) // 2 * 2  # pairs of neighbours
    together = side[group] if len(side) else side
    apart = kept_apart(rows, together, group)
    assert not leaks(rows, apart).any() and (apart == apart[group]).all()
    assert leaks(rows, together).any() or (apart == together).all()  # what is sound is left as it is
    out = leaking(rows, side)
    assert not out[side == 2].any()
    assert not leaks(rows.select(np.flatnonzero(~out)), side[~out]).any()
    first = leaks(rows, side)
    assert out[first].all() and first.any() == out.any()


def _runs(text: str) -> set[str]:
    letters = text.replace(" ", "")
    return {letters[i : i + 50] for i in range(max(1, len(letters) - 49))}


@settings(max_examples=1000, deadline=None)
@given(
    st.lists(st.one_of(TEXTS, SHORT.filter(str.isalpha)), max_size=24),
    st.lists(st.one_of(TEXTS, st.just("Hello")), max_size=8),
)
def test_what_is_held_is_what_a_plain_loop_finds(texts, references):
    counts = Counter(run for text in {t.replace(" ", "") for t in (*texts, *references)} for run in _runs(text))
    expected = []
    for text in texts:
        holds = False
        for reference in references:
            own = {run for run in _runs(reference) if counts[run] <= 10}
            whole = reference.replace(" ", "") in text.replace(" ", "")
            holds |= len(own & _runs(text)) >= len(own) / 2 if own else whole
        expected.append(holds)
    assert contaminated(texts, references).tolist() == expected


@pytest.mark.parametrize("copies", [1, 12, 40])
@pytest.mark.parametrize("wrap", [lambda text, _: text, lambda text, i: f"{words(i, 30)} {text} {words(99 + i, 30)}"])
def test_a_copy_of_a_held_out_prompt_never_passes_however_many_there_are(tmp_path, copies, wrap):
    source = tmp_path / "rows"
    source.mkdir()
    leaks = [turns(wrap(BLOCKS[0], i), words(i + 50, 20)) for i in range(copies)]
    rows = {"train": [*map(distinct, range(9)), *leaks], "test": [turns(BLOCKS[0], "Yes."), distinct(200)]}
    for split, some in rows.items():
        (source / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    found = {f.check: f for f in doctor(source, "tiny-qwen3").findings}["test_overlap"]
    assert found.severity == "error" and found.rows == copies
    pipeline, splits = prepared(source, tmp_path / "out")
    assert pipeline.report.dropped == {"overlaps a held-out row": copies}
    assert [len(split) for split in splits.values()] == [9, 0, 2] and not objections(tmp_path / "out")


def test_what_holds_one_text_is_split_together_and_nothing_is_lost(tmp_path):
    """Conversations that stand once a turn, each row holding the one before."""
    rows = [turns(*(words(100 * i + k, 12) for k in range(2 * length))) for i in range(40) for length in range(1, 4)]
    pipeline, splits = prepared(rows, tmp_path / "out", near_duplicate_threshold=None)
    longer = [{m[0]["content"] for m in split["messages"] if len(m) > 2} for split in splits.values()]
    assert pipeline.report.kept == len(rows) and sum(map(len, longer)) == 40
    assert min(len(split) for split in splits.values()) >= 0.15 * len(rows)
    assert not objections(tmp_path / "out")


def test_a_text_that_many_hold_is_trained_on_and_the_rest_is_split_as_asked(tmp_path):
    greeting = "Hello, I am a customer of yours and have the following question, which I hope you can answer."
    held = [turns(f"{greeting} {words(i, 30)}", words(i + 500, 5)) for i in range(60)]
    for seed in range(5):
        _, splits = prepared([turns(greeting, "Do ask."), *held], tmp_path / str(seed), seed=seed)
        assert all(row["messages"][-1]["content"] != "Do ask." for s in SPLITS[1:] for row in splits[s])
        assert all(abs(len(splits[s]) - 12) <= 1 for s in SPLITS[1:]) and not objections(tmp_path / str(seed))


@pytest.mark.parametrize("count", [15, 60, 300])
@pytest.mark.parametrize("labels", [["yes", "no"], [f"{words(i, 25, 'xyz')}" for i in range(5)]])
def test_a_form_or_an_answer_that_rows_share_is_no_overlap(tmp_path, count, labels):
    instruction = "Say in one word what the following message is about, and be honest where you cannot tell it: "
    rows = [turns(instruction + words(i, 12), labels[i % len(labels)]) for i in range(count)]
    system = [{"role": "system", "content": BLOCKS[0]}]
    rows = [{"messages": system + row["messages"]} for row in rows]
    pipeline, splits = prepared(rows, tmp_path / "out", near_duplicate_threshold=None)
    assert pipeline.report.kept == count and not objections(tmp_path / "out")
    if count > 15:
        assert [len(split) for split in splits.values()] == [0.6 * count, 0.2 * count, 0.2 * count]


def test_which_rows_are_held_depends_neither_on_the_order_nor_on_the_stretches():
    texts = [" ".join(BLOCKS[k] for k in range(9) if i >> k & 1) for i in range(1, 400)]
    references = [BLOCKS[0], f"{BLOCKS[1]} {BLOCKS[2]}", texts[77]]

    def held(order, size) -> list[tuple[int, int]]:
        held_out = HeldOut(references)
        parts = [order[at : at + size] for at in range(0, len(order), size)]
        for part in ([references], *([[texts[i] for i in part]] for part in parts)):
            held_out.count(part[0])
        return sorted((int(part[i]), int(r)) for part in parts for i, r in held_out.pairs([texts[k] for k in part]))

    one, shuffled = np.arange(len(texts)), np.random.default_rng(0).permutation(len(texts))
    assert held(one, 1000) == held(shuffled, 7)


def test_the_folder_on_the_disk_is_what_was_returned(tmp_path):
    _, splits = prepared([*map(distinct, range(12)), {"text": BLOCKS[0]}, {"text": " ".join(BLOCKS)}], tmp_path / "out")
    saved = load_from_disk(str(tmp_path / "out"))
    assert all(list(saved[split]) == list(splits[split]) for split in saved)
