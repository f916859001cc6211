"""The preparation by datatrove's executors gives what the pipeline of one machine gives."""

import json
import subprocess
import sys
from functools import partial

import pytest
from datasets import load_from_disk
from datatrove.executor import LocalPipelineExecutor

from ftkit import DataConfig, DataPreparationPipeline
from ftkit.data.prepared import metadata
from ftkit.data.scale import executors
from ftkit.errors import ConfigError, DataError, FtkitError

WORDS = "river stone window lamp garden bridge paper cloud engine harbour violin pepper castle mirror ladder".split()


def row(i: int, **other) -> dict:
    picked = [WORDS[(i * 7 + k * k + i * k) % len(WORDS)] for k in range(9)]
    made = {"instruction": f"Number {i}, {' '.join(picked)}?", "output": f"{' '.join(picked[::-1])} is {i * 37}."}
    return made | other


def rows() -> list[dict]:
    """Sound rows, and for each step some that it takes out."""
    sound = [row(i) for i in range(60)]
    near = [row(i, output=row(i)["output"].upper()) for i in (3, 40)]
    leaked = row(200, instruction=f"Please answer this: {row(901)['instruction']} Thanks!")
    faults = [
        {"body": "x"},
        row(7),
        row(70, output="ha " * 200),
        row(71, output=" ".join(row(i)["output"] for i in range(300, 330))),
        leaked,
    ]
    return [*sound[:30], *faults, *near, *sound[30:]]


def write(path, some) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in some) + "{broken\n")


@pytest.mark.parametrize(
    ("with_test", "settings"),
    [(True, {}), (False, {"packing": True, "max_seq_length": 900}), (False, {"near_duplicate_threshold": None})],
)
def test_the_same_rows_come_out(tmp_path, with_test, settings):
    source = tmp_path / "rows"
    source.mkdir()
    some = rows()
    for i in range(4):
        write(source / f"train-{i:05d}-of-00004.jsonl", some[i * 17 : (i + 1) * 17])
    if with_test:
        write(source / "test.jsonl", [row(i) for i in range(900, 910)])
    config = DataConfig(**{"model_name": "tiny-smollm", "max_seq_length": 1000, "num_proc": 1, **settings})
    alone = DataPreparationPipeline(config, progress=False)
    alone.run_pipeline(source, tmp_path / "alone")
    local = partial(LocalPipelineExecutor, workers=1)
    out = tmp_path / "scaled"
    executors(local, source, out, config, work_dir=tmp_path / "work", tasks=3).run()
    assert not list((tmp_path / "work").rglob("cache-*"))  # datasets left no second copy of the rows
    ours, theirs = (load_from_disk(str(folder)) for folder in (tmp_path / "alone", out))
    assert list(ours) == list(theirs)
    for split in ours:
        assert ours[split].column_names == theirs[split].column_names and list(ours[split]) == list(theirs[split])
    made, report = metadata(tmp_path / "alone"), metadata(out)
    assert sorted(report["rows"].pop("examples")) == sorted(made["rows"].pop("examples")) and report == made
    dropped = report["rows"]["dropped"]
    assert report["rows"]["read"] == report["rows"]["kept"] + sum(dropped.values())
    expected = {"unknown format", "not valid JSON", "exact duplicate", "repetitive", "longer than max_seq_length"}
    expected |= {"near-duplicate"} if "near_duplicate_threshold" not in settings else set()
    assert dropped.keys() == expected | ({"overlaps a held-out row"} if with_test else set())


def test_what_cannot_be_run_is_said_before_anything_runs(tmp_path):
    local = partial(LocalPipelineExecutor, workers=1)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        executors(local, tmp_path / "none", tmp_path / "out", DataConfig(), work_dir=tmp_path / "work", tasks=1)
    write(tmp_path / "rows.jsonl", [])
    for settings, says in (
        ({"decontaminate": "none.jsonl"}, "none.jsonl does not exist"),
        ({"packing": True, "model_name": "tiny-deepseek-v3.2"}, "not known to keep"),
    ):
        with pytest.raises(FtkitError, match=says):
            executors(
                local,
                tmp_path / "rows.jsonl",
                tmp_path / "out",
                DataConfig(**settings),
                work_dir=tmp_path / "work",
                tasks=1,
            )
    with pytest.raises(ConfigError, match="not empty"):
        executors(local, tmp_path / "rows.jsonl", tmp_path, DataConfig(), work_dir=tmp_path / "work", tasks=1)


def test_without_datatrove_one_sentence_says_what_to_install():
    code = "import sys; sys.modules['datatrove'] = None; sys.modules['datatrove.data'] = None; import ftkit.data.scale"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingDependency: preparing data with datatrove needs it; run: pip install 'ftkit[scale]'" in done.stderr
