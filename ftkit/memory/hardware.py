"""The table of accelerators, with the document that each row's figures come from."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path

from ftkit.errors import ConfigError, near_matches

FILE = Path(__file__).with_name("hardware.json")
ALIASES = {"a100": "A100-80", "a100-40gb": "A100-40", "a100-80gb": "A100-80", "h100-80gb": "H100"}


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU.

    Attributes:
        name: what it is called here.
        memory_gb: memory in 1e9 bytes, as sold. Most cards have GiB behind that number, so this is the careful side.
        bandwidth_gbs: memory bandwidth in 1e9 bytes a second.
        tflops: peak dense matrix rate in `dtype`, in 1e12 operations a second; datasheets often print twice that, the
            rate with sparsity.
        dtype: float16 on cards without bfloat16 units.
        source: the vendor's document, and how the dense rate follows from what it prints.
        read_at: a page that carries the rate, where it was read: the vendors' own documents were not at hand.
    """

    name: str
    memory_gb: float
    bandwidth_gbs: float
    tflops: float
    dtype: str
    source: str
    read_at: str = ""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gb * 1e9)


@functools.cache
def accelerators() -> tuple[Accelerator, ...]:
    """The table, from small to large."""
    return tuple(Accelerator(**row) for row in json.loads(FILE.read_text(encoding="utf-8")))


def accelerator(name: str) -> Accelerator:
    """The row called `name`, whatever its case and with or without spaces and hyphens.

    Raises:
        ConfigError: the table has no such card; the text names the nearest.
    """
    wanted = _plain(ALIASES.get(name.lower(), name))
    for row in accelerators():
        if _plain(row.name) == wanted:
            return row
    known = [row.name for row in accelerators()]
    raise ConfigError(f"there is no GPU {name!r} in the table; it has {', '.join(known)}.{near_matches(name, known)}")


def _plain(name: str) -> str:
    return name.lower().replace(" ", "").replace("-", "").removeprefix("nvidia").removeprefix("geforce")
