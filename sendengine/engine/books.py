"""Books what came of each request: on the receipts of its jobs, in the lane's intake, and with the observer.

Units: seconds on the running loop's clock; records carry seconds since the epoch.
"""

import time
from collections.abc import Callable, Sequence

from sendengine.core.outcomes import OUTCOME_NAMES, SPLIT, Outcome
from sendengine.core.verdicts import Took
from sendengine.engine.custody import Custody
from sendengine.engine.intake import Intake
from sendengine.engine.receipts import Receipt
from sendengine.engine.sealed import Sealed
from sendengine.engine.source import Settled
from sendengine.ports import Observer, Part, RequestRecord


class Books:
    """One lane's. Every recipient of every job is booked exactly once.

    ``when_crashed`` is told of what the observer raises, which ends neither a booking nor what led to it.
    """

    def __init__(
        self,
        *,
        lane: str,
        intake: Intake,
        observer: Observer | None,
        custody: Custody | None,
        when_settled: Callable[[Receipt], None],
        when_crashed: Callable[[BaseException], None],
    ) -> None:
        self.outcomes: dict[str, int] = {}
        self.unsettled = 0  # jobs that were admitted and have not settled
        self._lane = lane
        self._intake = intake
        self._observer = observer
        self._custody = custody
        self._when_settled = when_settled
        self._when_crashed = when_crashed

    @property
    def is_settled(self) -> bool:
        """Whether every admitted job has settled."""
        return not self.unsettled

    def book(self, settled: Sequence[Settled]) -> None:
        """Book portions that no request carried: expired or abandoned while they waited."""
        _, over = self._enter(None, settled)
        self._show(over)

    def close(
        self,
        sealed: Sealed,
        settled: Sequence[Settled],
        *,
        now_s: float,
        outcome: Outcome | None = None,
        took: Took | None = None,
    ) -> None:
        """A request is over: book its portions and show it to the observer; no ``outcome`` where it was split.

        ``took`` is the reply that accepted it.
        """
        sealed.is_over = True
        parts, over = self._enter(sealed, settled)
        if self._observer is not None:
            epoch_s = time.time() - now_s  # to date what the loop's clock measured
            record = RequestRecord(
                lane=self._lane,
                key=getattr(sealed.request, "key", None),
                message_id="" if took is None else took.message_id,
                recipients=sealed.recipients,
                parts=tuple((receipt.job, part) for receipt, part in parts),
                outcome=SPLIT if outcome is None else OUTCOME_NAMES[type(outcome)],
                status=sealed.status,
                attempts=sealed.attempts,
                replayed=took is not None and took.replayed,
                cf_ray=sealed.cf_ray,
                sealed_at_s=sealed.sealed_at_s + epoch_s,
                first_sent_at_s=None if sealed.first_sent_at_s is None else sealed.first_sent_at_s + epoch_s,
                settled_at_s=now_s + epoch_s,
            )
            self._tell(self._observer.request_settled, record)
            self._show(over)

    def _enter(
        self, sealed: Sealed | None, settled: Sequence[Settled]
    ) -> tuple[Sequence[tuple[Receipt, Part]], Sequence[Receipt]]:
        """Book portions on their receipts and in the journal; returns them, and the jobs that settled with them."""
        parts: list[tuple[Receipt, Part]] = []
        over: list[Receipt] = []
        for receipt, recipients, outcome in settled:
            part = Part(recipients, outcome)
            parts.append((receipt, part))
            if receipt.book(part):
                over.append(receipt)
                self.unsettled -= 1
                self._intake.leave(receipt.size_bytes, high=receipt.job.urgency == "high")
                name = OUTCOME_NAMES[type(receipt.settle())]
                self.outcomes[name] = self.outcomes.get(name, 0) + 1
                self._when_settled(receipt)
        if self._custody is not None:
            self._custody.settle(sealed, parts, lane=self._lane)
        return parts, over

    def _show(self, over: Sequence[Receipt]) -> None:
        if self._observer is None:
            return
        for receipt in over:
            if receipt.outcome is not None:
                self._tell(self._observer.job_settled, receipt.job, receipt.outcome, receipt.parts)

    def _tell(self, observer: Callable[..., None], *news: object) -> None:
        try:
            observer(*news)
        except Exception as error:  # noqa: BLE001 - not caught here but carried to who says that the engine is broken
            self._when_crashed(error)
