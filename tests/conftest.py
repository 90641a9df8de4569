"""How hypothesis looks for examples: the same ones in each run, unless somebody wants new ones; how many run at once.

``--hypothesis-profile=explore`` (``make laws``) tries many more, and others each time.
"""

import os

import pytest
from hypothesis import settings

settings.register_profile("repeatable", max_examples=50, derandomize=True, deadline=None)
settings.register_profile("explore", max_examples=1000, deadline=None, print_blob=True)
settings.load_profile("repeatable")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are processors: programs that are started, and disks, are waited for."""
    return (os.cpu_count() or 1) + 2
