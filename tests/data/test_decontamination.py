"""What was prepared holds no training row that the doctor would object to, whatever rows came in."""

import random
import tempfile
from pathlib import Path

import numpy as np
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.data import doctor
from ftkit.data.decontamination import leaking_rows

BLOCKS = [" ".join("".join(random.Random(i * 100 + k).choices("abcdefgh", k=6)) for k in range(14)) for i in range(9)]
"""Texts of 84 letters; a row of several holds each of them whole, at a Jaccard similarity far below 0.8."""
TEXTS = st.lists(st.integers(0, len(BLOCKS) - 1), min_size=1, max_size=4).map(
    lambda at: " ".join(BLOCKS[i] for i in at)
)
KINDS = {
    "text": lambda text: {"text": text},
    "question": lambda text: {"prompt": text, "completion": "Yes."},
    "answer": lambda text: {"prompt": f"Say {text[:9]}", "completion": text},
    "conversation": lambda text: {
        "messages": [{"role": role, "content": c} for c in (text, text[:99]) for role in ("user", "assistant")]
    },
}
ROWS = st.lists(st.builds(lambda kind, text: KINDS[kind](text), st.sampled_from(sorted(KINDS)), TEXTS), max_size=40)


def distinct(i: int) -> dict:
    return {"prompt": f"Number {i}?", "completion": "".join(random.Random(i).choices("ijklmnop ", k=90))}


def prepared(rows, folder, **other):
    config = {"model_name": "tiny-qwen3", "num_proc": 1, "train_split": 0.6, "val_split": 0.2, "test_split": 0.2}
    pipeline = DataPreparationPipeline(DataConfig(**config | other), progress=False)
    return pipeline, pipeline.run_pipeline(rows, folder)


def overlaps(folder) -> set[str]:
    return {f.check for f in doctor(folder, "tiny-qwen3").findings} & {"validation_overlap", "test_overlap"}


@settings(max_examples=25, deadline=None)
@given(ROWS, st.sampled_from(["last", "all"]))
def test_the_doctor_finds_no_overlap_in_what_was_prepared(rows, train_on):
    with tempfile.TemporaryDirectory() as folder:
        pipeline, splits = prepared([*map(distinct, range(12)), *rows], Path(folder) / "out", train_on=train_on)
        report = pipeline.report
        assert report.read == 12 + len(rows) == report.kept + sum(report.dropped.values())
        assert report.kept == len({(split, row["where"]) for split, some in splits.items() for row in some})
        assert not overlaps(Path(folder) / "out")


def test_a_row_that_holds_a_held_out_text_is_left_out_and_shown(tmp_path):
    long = [
        {"text": " ".join([BLOCKS[i], *(distinct(100 + 10 * i + k)["completion"] for k in range(5))])} for i in range(9)
    ]
    rows = [*long, *({"text": block} for block in BLOCKS), *map(distinct, range(12))]
    pipeline, splits = prepared(rows, tmp_path / "out")
    left_out = pipeline.report.dropped["overlaps a held-out row"]
    assert left_out and pipeline.report.kept == sum(map(len, splits.values())) == len(rows) - left_out
    assert all(text.startswith(tuple(BLOCKS)) for text in pipeline.report.examples["overlaps a held-out row"])
    assert not overlaps(tmp_path / "out")


def test_an_instruction_that_rows_share_leaves_nothing_out(tmp_path):
    """Of a few test rows it cannot be told that they share a form; of the training rows that use it, it can."""
    for count in (20, 60):  # 4 and 12 test rows
        texts = [distinct(i)["completion"] for i in range(count)]
        rows = [{"prompt": f"{BLOCKS[i % 2]} {text[:20]}", "completion": text[::-1]} for i, text in enumerate(texts)]
        pipeline, splits = prepared(rows, tmp_path / str(count))
        assert pipeline.report.kept == count == sum(map(len, splits.values()))
        assert not overlaps(tmp_path / str(count))


TABLES = st.lists(st.lists(TEXTS, max_size=12), min_size=3, max_size=3)


@settings(max_examples=300, deadline=None)
@given(TABLES)
def test_what_is_left_out_is_what_a_plain_loop_leaves_out(texts):
    splits = {
        split: Dataset.from_dict({"text": some})
        for split, some in zip(("train", "validation", "test"), texts, strict=True)
    }
    train, held_out, left = texts[0], [*texts[2], *texts[1]], set(range(len(texts[0])))
    holders = [set() for _ in held_out]
    for i, text in enumerate(train):
        for j in range(len(held_out)):
            if _holds(text, held_out, j):
                holders[j].add(i)
    while leaking := {i for some in holders if len(some & left) <= min(10, max(2, len(left) / 4)) for i in some & left}:
        left -= leaking
    assert np.flatnonzero(~leaking_rows(splits)).tolist() == sorted(left)


def _holds(text: str, held_out: list[str], j: int) -> bool:
    """Whether at least half of the 50-letter runs of one held-out text, boilerplate aside, stand in `text`."""
    runs = [{t[i : i + 50] for i in range(len(t) - 49)} for t in (t.replace(" ", "") for t in [text, *held_out])]
    own = {run for run in runs[j + 1] if sum(run in other for other in runs[1:]) <= 10}
    return bool(own) and len(own & runs[0]) >= len(own) / 2
