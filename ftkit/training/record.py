"""A run's folder: what is in it from the start, what is added at the end, and whether it can be gone on with."""

import dataclasses
import hashlib
import json
import os
import platform
import shutil
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ftkit.errors import ConfigError
from ftkit.folders import check_writable
from ftkit.training import checkpoint as checkpoints
from ftkit.training.config import RUN_FILE, TrainingConfig
from ftkit.training.trainer import LOG_FILE

CONFIG_FILE = "config.yaml"
CURVE_FILE = "loss.svg"
_FREE = ("output_dir", "report_to", "use_wandb", "project_name", "run_name", "save_total_limit", "max_nonfinite_steps")
"""Settings that may differ when a run is resumed: they change no number of it."""


def settings(config: TrainingConfig) -> dict[str, Any]:
    """The configuration as plain values, without `resume`."""
    plain = json.loads(json.dumps(dataclasses.asdict(config)))
    del plain["resume"]
    return plain


def fingerprint(dataset: dict[str, list[dict[str, list[int]]]]) -> str:
    """SHA-256 over the ids and labels that the run sees, in their order."""
    digest = hashlib.sha256()
    for split, rows in sorted(dataset.items()):
        digest.update(f"{split} {len(rows)}".encode())
        for row in rows:
            for key, values in sorted(row.items()):
                digest.update(f"{key} {len(values)}".encode())
                digest.update(np.asarray(values, dtype="<i8").tobytes())
    return digest.hexdigest()


def identity(config: TrainingConfig, dataset: dict[str, list[dict[str, list[int]]]], processes: int) -> dict[str, Any]:
    """What a run is told by when it is to be resumed."""
    return {"config": settings(config), "data_sha256": fingerprint(dataset), "processes": processes}


def check_folder(output: Path, resume: bool) -> None:
    """Refuse a folder that holds something else than what is wanted of it, or that cannot be written.

    Raises:
        ConfigError: with what to do.
    """
    check_writable(output, output)
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / CONFIG_FILE).is_file():
        raise ConfigError(f"output_dir {output} is not empty and holds no run; name another folder.")
    if not resume:
        raise ConfigError(
            f"output_dir {output} is not empty: it holds a run. Go on with it by --resume (in Python: resume=True), "
            "name another folder, or delete it to run again."
        )


def last_checkpoint(output: Path, run: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from; None where the run has not come so far.

    Args:
        run: the `identity` of the run that wants to go on.

    Raises:
        ConfigError: the checkpoint is of another run.
    """
    if not (found := checkpoints.steps(output)):
        return None
    folder = checkpoints.path_of(output, found[-1])
    was = checkpoints.read_state(folder)["run"]
    old, new = was["config"], run["config"]
    if changed := [name for name in old | new if name not in _FREE and old.get(name) != new.get(name)]:
        had, has = (", ".join(f"{name}={config.get(name)!r}" for name in changed) for config in (old, new))
        raise ConfigError(f"the run in {output} has {had}, not {has}; a run is resumed with its own settings.")
    if was["data_sha256"] != run["data_sha256"]:
        raise ConfigError(f"the data is not the one that the run in {output} began with; resume it with its own data.")
    if was["processes"] != run["processes"] and not (output / RUN_FILE).is_file():  # a complete run is only read
        raise ConfigError(
            f"the run in {output} was trained by {was['processes']} processes, not {run['processes']}, each of which "
            "takes its share of every step; resume it with as many."
        )
    return folder


def times(output: Path) -> dict[str, float]:
    """Of a run that is complete, `train_runtime` and `total_runtime` in seconds; nothing of any other."""
    if not (output / RUN_FILE).is_file():
        return {}
    metrics = json.loads((output / RUN_FILE).read_text(encoding="utf-8"))["metrics"]
    return {name: metrics[name] for name in ("train_runtime", "total_runtime")}


def begin(output: Path, config: TrainingConfig, fresh: bool) -> None:
    """Write the configuration; a fresh run begins with an empty log."""
    output.mkdir(parents=True, exist_ok=True)
    for left in output.glob(".checkpoint-*"):  # half written or half removed when a run was killed
        shutil.rmtree(left)
    _write(output / CONFIG_FILE, yaml.safe_dump(settings(config), sort_keys=False, allow_unicode=True))
    (output / RUN_FILE).unlink(missing_ok=True)
    if fresh:
        (output / LOG_FILE).unlink(missing_ok=True)


def finish(output: Path, config: TrainingConfig, metrics: dict, data_sha256: str, history: list[dict]) -> None:
    """Draw the loss, and write the record that says that the run is whole."""
    _draw(output / CURVE_FILE, history)
    names = ("ftkit", "torch", "transformers", "peft", "accelerate", "safetensors")
    made = {
        "method": getattr(config, "method", "full"),
        "config": settings(config),
        "seed": config.seed,
        "metrics": metrics,
        "data_sha256": data_sha256,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in names}},
    }
    _write(output / RUN_FILE, json.dumps(made, indent=2) + "\n")


def _draw(path: Path, history: list[dict]) -> None:
    if find_spec("matplotlib") is None:
        print("the loss curve is not drawn: matplotlib is not installed (pip install 'ftkit[plot]')")
        return
    import matplotlib.pyplot as plt

    from ftkit.figures.results import loss_curve

    with plt.rc_context():
        figure = loss_curve(history)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _write(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)
