"""What a benchmark ran on, and what processes cost.

Units: ``_s`` is seconds of CPU, all threads and the kernel's part included; ``_bytes`` is resident memory.
"""

import os
import ssl
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from sendengine.bench.machine import Machine
from sendengine.bench.machine import this_machine as described

_PACKAGES: Final = (
    "sendengine", "aiohttp", "aiolimiter", "httptools", "httpx", "msgspec", "onesignal-python-api", "orjson", "uvloop",
)  # fmt: skip


def this_machine() -> Machine:
    """Describe the machine, with the versions of those contestants that are installed."""
    return replace(described(), packages=_versions())


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


def peak_resident_bytes() -> int:
    """Return the most resident memory that this process has had. Linux only (raises OSError).

    What getrusage(2) calls the maximum also counts the process that started this one, until its program was loaded.
    """
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return {**found, "OpenSSL": ssl.OPENSSL_VERSION.split()[1]}
