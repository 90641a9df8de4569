"""Requests that count against the application limit once more.

A request's deliveries are reserved before its first attempt, and a repeat does not count again. But after longer than
the limit's window they have left the count, and it may be the repeat that OneSignal delivers: after an outage, or in
a later process.

Units: deliveries; seconds on the running loop's clock, ages on the wall clock's.
"""

from typing import Final

from msgspec.structs import replace

from sendengine.core.jobs import CreateNotification
from sendengine.core.onesignal import APPLICATION_WINDOW_S
from sendengine.engine.app import App
from sendengine.engine.sealed import Sealed

COUNTED_S: Final = float(APPLICATION_WINDOW_S)
"""For so long what was reserved for a request counts."""


def recounted(like: Sealed, *, now_s: float) -> Sealed:
    """Return ``like``, which this process has not sent, to be weighed when the limit is known.

    While an engine starts it is not.
    """
    return replace(like, weight=None, is_counted=False, sealed_at_s=now_s)


def weight_again(sealed: Sealed, app: App) -> int:
    """What it counts where nothing counts for it now; never more than the limit, since it was admitted once."""
    guard = app.guard
    weight = guard.weigh(_deliveries(sealed, each=app.settings.deliveries_per_recipient))
    return weight if guard.limit is None else min(weight, guard.limit)


def _deliveries(sealed: Sealed, *, each: float) -> float | None:
    job = sealed.shares[0][0].job
    if isinstance(job, CreateNotification) and not job.to.is_listed:
        return None if job.expected_recipients is None else job.expected_recipients * each
    return sealed.recipients * each
