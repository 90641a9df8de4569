"""How much is tried: by default as much as fits every day, more by ``CRASH_KILLS`` and ``CRASH_BYTES``."""

import os
from typing import NamedTuple

KILLS = int(os.environ.get("CRASH_KILLS", "28"))
"""How many processes are killed, about."""
BYTES_CASES = int(os.environ.get("CRASH_BYTES", "40"))
"""How many times bytes of a journal's files are damaged."""

_OF_A_BATCH = 24
_SHARES = {"program": 0.3, "workers": 0.1, "jobs": 0.25, "campaign": 0.23, "changes": 0.12}


class Kills(NamedTuple):
    """Of one kind of process."""

    batches: int
    of_a_batch: int

    def check(self, killed: int) -> None:
        """Raise AssertionError where too few of a batch were killed: some come to their end first, one at any rate."""
        least = min(0.8 * self.of_a_batch, self.of_a_batch - 1)
        assert killed >= least, f"only {killed} of {self.of_a_batch} processes were killed in time"


def kills_of(kind: str) -> Kills:
    """Divide the kills of a kind into tests of about the same size."""
    wanted = max(1, round(KILLS * _SHARES[kind]))
    batches = -(-wanted // _OF_A_BATCH)
    return Kills(batches, -(-wanted // batches))
