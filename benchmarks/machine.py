"""What a result file says of the machine."""

import platform
import re
from pathlib import Path


def processor() -> str:
    """The processor's name where Linux tells it."""
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor() or platform.machine()
