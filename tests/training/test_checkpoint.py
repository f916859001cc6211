"""A checkpoint is whole or not there, while it is written and while it is removed."""

import errno

import pytest
import torch

from ftkit.errors import TrainingError
from ftkit.training import checkpoint as checkpoints


def test_what_is_written_is_read_back_to_the_bit(tmp_path):
    state = {"a": {3: [torch.rand(2), 0.1, None]}, "b": {"x": torch.tensor(2**40), "y": [True, "text"]}}
    checkpoints.write_state(tmp_path, state)
    back = checkpoints.read_state(tmp_path)
    assert torch.equal(back["a"][3].pop(0), state["a"][3].pop(0)) and torch.equal(
        back["b"].pop("x"), state["b"].pop("x")
    )
    assert back == state


def test_every_generator_goes_on_where_it_stood(tmp_path):
    import random

    import numpy as np

    checkpoints.write_state(tmp_path, checkpoints.random_state())

    def draw():
        return random.gauss(0, 1), np.random.randn(3).tolist(), torch.rand(3).tolist()

    first = draw()
    checkpoints.set_random_state(checkpoints.read_state(tmp_path))
    assert draw() == first


def test_best_and_last_are_kept_whatever_the_limit(tmp_path):
    for step in range(1, 8):
        checkpoints.path_of(tmp_path, step).mkdir()
    checkpoints.prune(tmp_path, 3, best=2)
    assert checkpoints.steps(tmp_path) == [2, 6, 7]
    checkpoints.prune(tmp_path, 1, best=2)
    assert checkpoints.steps(tmp_path) == [2, 7]


def test_a_folder_that_is_half_removed_is_no_checkpoint(tmp_path, monkeypatch):
    for step in (1, 2):
        checkpoints.path_of(tmp_path, step).mkdir()
        (checkpoints.path_of(tmp_path, step) / "part").touch()
    rmtree = checkpoints.shutil.rmtree

    def killed(folder, **options):
        if folder.exists():
            raise KeyboardInterrupt
        rmtree(folder, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints.shutil, "rmtree", killed)
        checkpoints.prune(tmp_path, 1, best=None)
    assert (tmp_path / ".checkpoint-1.old" / "part").exists() and checkpoints.steps(tmp_path) == [2]


FULL = "No space left on device"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, FULL), Exception(f"{FULL} (os error 28)")])
def test_a_refused_write_leaves_nothing_behind(tmp_path, error):
    with pytest.raises(TrainingError, match="No space left.*the one before it stands"):
        with checkpoints.written_whole(tmp_path / "checkpoint-3") as beside:
            (beside / "part").write_bytes(b"half")
            raise error
    assert not list(tmp_path.iterdir())
