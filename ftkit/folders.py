"""Folders that work is written into: asked for before it begins, readable for others when it is done."""

import errno
import re
import shutil
from pathlib import Path
from tempfile import TemporaryFile

from ftkit.errors import ConfigError

_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def check_writable(output: Path, folder: Path) -> None:
    """Try to write where `folder`, which holds `output`, is or will be made: before hours of work, not after them.

    Raises:
        ConfigError: nothing can be written there.
    """
    try:
        with TemporaryFile(dir=next(path for path in (folder, *folder.parents) if path.exists())):
            pass
    except OSError as error:
        raise ConfigError(f"output_dir {output} cannot be written ({error.strerror}); name another folder.") from None


def refuse_to_overwrite(output_dir: str | Path) -> None:
    """
    Raises:
        ConfigError: `output_dir` exists and is not an empty folder, cannot be written beside, or cannot be replaced by
            the finished folder.
    """
    output = Path(output_dir)
    check_writable(output, output.resolve().parent)
    if output.resolve() == Path.cwd() or output.is_mount():
        raise ConfigError(
            f"output_dir {output} is the working folder or a mount point, which the finished folder cannot take the "
            "place of; name a folder in it."
        )
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"output_dir {output} is not empty; name another folder, or delete it first.")


def refused_by_disk(error: BaseException) -> bool:
    """Whether the disk is full or may not be written: neither the program's fault nor the input's.

    Libraries in Rust say so in classes of their own, of which tokenizers' is a bare Exception.
    """
    if isinstance(error, OSError):
        return error.errno in _REFUSALS
    found = re.search(r"\(os error (\d+)\)", str(error))
    return found is not None and int(found[1]) in _REFUSALS


def open_to_others(folder: Path) -> None:
    """Give weights the rights of the model card beside them: safetensors leaves them to their owner alone."""
    for file in folder.glob("*.safetensors"):
        shutil.copymode(folder / "README.md", file)
