"""What a benchmark ran on, and what processes cost.

Units: ``_s`` is seconds of CPU, all threads and the kernel's part included; ``_bytes`` is resident memory.
"""

import os
import platform
import ssl
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from msgspec import Struct

_PACKAGES: Final = (
    "sendengine", "aiohttp", "aiolimiter", "httptools", "httpx", "msgspec", "onesignal-python-api", "orjson", "uvloop",
)  # fmt: skip
_BUSY_LOAD: Final = 0.5


class Machine(Struct, frozen=True):
    """The machine and the versions of what ran on it. ``load`` is its load average at the start."""

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


def this_machine() -> Machine:
    """Describe the machine."""
    return Machine(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        python=f"{platform.python_implementation()} {platform.python_version()}",
        packages=_versions(),
        load=round(os.getloadavg()[0], 2),
    )


def cpu_s_of(process_id: int) -> float:
    """Return the CPU that another process has used, to a hundredth of a second. Linux only (raises OSError)."""
    fields = Path(f"/proc/{process_id}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime: fields 14 and 15


def open_descriptors(process_id: int | None = None) -> int:
    """Return how many files and sockets a process has open, this one if none is given. Linux only (raises OSError)."""
    return sum(1 for _ in Path(f"/proc/{process_id or 'self'}/fd").iterdir())


def resident_bytes() -> int:
    """Return the resident memory of this process. Linux only (raises OSError)."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _versions() -> dict[str, str]:
    """Of what is installed: the contestants of the extra ``bench`` may be missing."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {**found, "OpenSSL": ssl.OPENSSL_VERSION.split()[1]}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
