"""What a benchmark ran on: the machine, how busy it was with other things, and the versions of what ran.

Units: ``load`` is the mean number of programs that wanted a processor in the minute before.
"""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from msgspec import Struct

_PACKAGES: Final = ("sendengine", "aiohttp", "httptools", "msgspec", "orjson", "uvloop")
_BUSY_LOAD: Final = 0.5


class Machine(Struct, frozen=True):
    """The machine and the versions."""

    system: str
    processor: str
    cores: int
    python: str
    packages: dict[str, str]
    load: float

    @property
    def is_busy(self) -> bool:
        """Whether others were at work: absolute figures then mean nothing, and ratios little."""
        return self.load > _BUSY_LOAD

    def __str__(self) -> str:
        cores = f"{self.cores} core{'' if self.cores == 1 else 's'}"
        return f"{self.processor}, {cores}, {self.system}, {self.python}, sendengine {self.packages['sendengine']}"


def this_machine() -> Machine:
    """Describe the machine as it is now."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages={name: _version(name) for name in _PACKAGES},
        load=round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0,
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine() or "unknown processor")
