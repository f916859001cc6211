"""Checkpoints: whole or not there, without anything pickled, and with all that a run needs to go on to the bit."""

import contextlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ftkit.errors import TrainingError
from ftkit.folders import refused_by_disk

STATE_FILE = "training_state.json"
TENSORS_FILE = "training_state.safetensors"
_NAME = re.compile(r"checkpoint-(\d+)")


def steps(output: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder, ascending."""
    return sorted(int(found[1]) for path in output.glob("checkpoint-*") if (found := _NAME.fullmatch(path.name)))


def path_of(output: Path, step: int) -> Path:
    return output / f"checkpoint-{step}"


@contextlib.contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` to write into. It takes the name when the block ends, and is removed when it fails.

    Raises:
        TrainingError: the disk refused, because it is full for example.
    """
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        yield beside
        for file in beside.rglob("*"):  # on the disk before the name is: else a power cut leaves the name alone
            if file.is_file():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
        _remove(folder)
        os.replace(beside, folder)
    except BaseException as error:
        shutil.rmtree(beside, ignore_errors=True)
        if not isinstance(error, OSError | SafetensorError) and not refused_by_disk(error):
            raise
        raise TrainingError(
            f"{folder.name} could not be written into {folder.parent} ({error}); the one before it stands. Make room, "
            "then go on from there with --resume (in Python: resume=True)."
        ) from error


def prune(output: Path, limit: int, best: int | None) -> None:
    """Remove the oldest checkpoints beyond `limit`, but for the last one and the best."""
    found = steps(output)
    kept = {found[-1], best}
    for step in reversed(found):
        if len(kept & set(found)) < limit:
            kept.add(step)
    for step in set(found) - kept:
        _remove(path_of(output, step))


def _remove(folder: Path) -> None:
    """Take the name away first: a folder that is half removed must not look whole."""
    if folder.exists():
        beside = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(beside, ignore_errors=True)
        os.replace(folder, beside)
        shutil.rmtree(beside, ignore_errors=True)


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write nested dictionaries and lists of tensors, numbers and strings: tensors as safetensors, the rest as JSON."""
    tensors: dict[str, torch.Tensor] = {}
    plain = _part(state, "", tensors, {})
    save_file(tensors, folder / TENSORS_FILE)
    (folder / STATE_FILE).write_text(json.dumps(plain) + "\n", encoding="utf-8")


def read_state(folder: Path) -> dict[str, Any]:
    """What `write_state` wrote."""
    return _join(json.loads((folder / STATE_FILE).read_text(encoding="utf-8")), load_file(folder / TENSORS_FILE))


def _part(value: Any, path: str, tensors: dict[str, torch.Tensor], seen: dict[tuple, str]) -> Any:
    if isinstance(value, torch.Tensor):
        # Once, whoever holds it: 8-bit states share their code books, which safetensors would not write twice.
        path = seen.setdefault((value.data_ptr(), value.shape, value.dtype) if value.numel() else (path,), path)
        tensors[path] = value.detach().cpu().contiguous()
        return {"tensor": path}
    if isinstance(value, dict):
        return {"dict": [[key, _part(item, f"{path}/{key}", tensors, seen)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [_part(item, f"{path}/{i}", tensors, seen) for i, item in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, list):
        return [_join(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "tensor" in value:
        return tensors[value["tensor"]]
    return {key: _join(item, tensors) for key, item in value["dict"]}


def random_state() -> dict[str, Any]:
    """The state of every random number generator of this process: Python's, NumPy's, torch's, and the GPU's."""
    version, numbers, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()
    state = {
        "python": [version, torch.tensor(numbers), gauss],
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Back to what `random_state` gave."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
