"""Counts and logs failures that nobody waits for, so that none goes unseen and a flood of them stays readable."""

import logging
from typing import Final

from msgspec.structs import replace

from sendengine.core.outcomes import OUTCOME_NAMES, Accepted, Outcome
from sendengine.engine.events import announce
from sendengine.engine.receipts import Receipt

_ONE_BY_ONE: Final = 100  # failures that get a line each; of the others every thousandth says how many there were
_EVERY: Final = 1000


class UnawaitedFailures:
    """Jobs that did not end Accepted and whose receipts nobody awaited."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    def watch(self, receipt: Receipt) -> None:
        """A job has settled; a failure that is dropped unread is counted and logged then."""
        if not isinstance(receipt.outcome, Accepted) and not receipt.is_awaited:
            receipt.when_dropped(self._dropped)

    def _dropped(self, outcome: Outcome) -> None:
        self.count += 1
        if self.count <= _ONE_BY_ONE or self.count % _EVERY == 0:
            name = OUTCOME_NAMES[type(outcome)]
            recipients, why = 0, outcome
            if not isinstance(outcome, Accepted):  # whom it was for is not for a log, and may be 100,000 names
                recipients, why = len(outcome.not_sent), replace(outcome, not_sent=())
            announce(
                "unawaited_failure",
                f"a job that nobody awaited ended as {name} for {recipients} recipients ({self.count} so far): {why}",
                level=logging.WARNING,
                outcome=name,
                recipients=recipients,
                count=self.count,
            )
