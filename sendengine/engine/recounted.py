"""A request of an earlier process that counts against the application limit once more.

Its deliveries were reserved when it was sealed. Where that is longer ago than the limit's window, they have left the
count, and it may be now that OneSignal delivers it.

Units: deliveries; seconds on the running loop's clock, ages on the wall clock's.
"""

from typing import Final

from sendengine.core.jobs import CreateNotification
from sendengine.core.onesignal import APPLICATION_WINDOW_S
from sendengine.engine.app import App
from sendengine.engine.sealed import Sealed

COUNTED_S: Final = float(APPLICATION_WINDOW_S)
"""For so long what was reserved for a request counts."""


class Recounted(Sealed):
    """It is weighed when it is asked for its weight: while an engine starts, its limit is not known yet."""

    __slots__ = ("_app",)

    def __init__(self, like: Sealed, *, app: App, now_s: float) -> None:
        """Be as ``like``, which has not been sent by this process."""
        self._app = app
        super().__init__(
            like.request,
            shares=like.shares,
            origin=like.origin,
            is_high=like.is_high,
            deadline_s=like.deadline_s,
            now_s=now_s,
        )
        self.wire = like.wire
        self.maybe_received_at_s, self.sent_at_s = like.maybe_received_at_s, like.sent_at_s
        self.is_kept, self.records = like.is_kept, like.records
        self.is_counted = False

    @property
    def weight(self) -> int:
        """What it counts; never more than the limit, since it was admitted once."""
        guard = self._app.guard
        weight = guard.weigh(self._deliveries)
        return weight if guard.limit is None else min(weight, guard.limit)

    @weight.setter
    def weight(self, weight: int) -> None:
        """It is worked out."""

    @property
    def _deliveries(self) -> float | None:
        each = self._app.settings.deliveries_per_recipient
        job = self.shares[0][0].job
        if isinstance(job, CreateNotification) and not job.to.is_listed:
            return None if job.expected_recipients is None else job.expected_recipients * each
        return self.recipients * each
