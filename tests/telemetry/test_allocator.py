"""What the allocator keeps, seen in the page faults of a process of its own."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from sendengine.telemetry.allocator import tune_allocator
if sys.argv[1] == "tuned":
    tune_allocator()
def fill():
    blocks = [bytes(40_000) for _ in range(64)]
    for block in blocks:
        hash(block)
fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own code
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is set up")
def test_memory_that_is_freed_and_taken_again_costs_no_page_faults() -> None:
    assert faults("tuned") < faults("as it is") / 4
