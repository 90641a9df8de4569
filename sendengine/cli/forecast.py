"""What a run is going to do: how many requests in each lane, how long, and how much of the application limit.

Units: ``_s`` seconds; ceilings are requests a second.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import closing
from itertools import islice
from math import ceil
from typing import Final

from msgspec import Struct

from sendengine.campaign.work import CampaignInput, JobsInput, LoadedInput, Work
from sendengine.core.onesignal import APPLICATION_WINDOW_S, EndpointGroup
from sendengine.settings import Settings

_SAMPLE: Final = 200


class Forecast(Struct, frozen=True):
    """Requests by lane, and the least time that they take. ``is_exact`` says that the requests were counted."""

    requests: Mapping[str, int]
    is_exact: bool
    least_s: float


class Limit(Struct, frozen=True):
    """One app's application limit beside what the run delivers; None where a number is not known before."""

    app: str
    deliveries: int | None
    most: int | None

    @property
    def windows(self) -> int:
        """How many further quarters of an hour the run has to wait for room."""
        if self.deliveries is None or not self.most:
            return 0
        return max(0, ceil(self.deliveries / self.most) - 1)


def forecast(loaded: LoadedInput, work: Work, settings: Settings, *, is_exact: bool) -> Forecast:
    """Say what the run needs at least; a campaign's requests are estimated from its first ones unless counted."""
    requests: Mapping[str, int] = (
        {_lane(loaded.app, loaded.campaign.kind): _requests(work, is_exact=is_exact)}
        if isinstance(loaded, CampaignInput)
        else _requests_of_jobs(loaded, settings)
    )
    least_s = max((count / ceiling_of(settings, lane) for lane, count in requests.items()), default=0.0)
    return Forecast(requests, is_exact and isinstance(loaded, CampaignInput), least_s)


def ceiling_of(settings: Settings, lane: str) -> float:
    """Return the most requests a second of a lane, the app's share taken."""
    name, _, group = lane.rpartition("/")
    return settings.apps[name].ceiling(EndpointGroup(group))


def reached(loaded: LoadedInput, work: Work) -> int | None:
    """Return how many people a run sends to or changes; None where only OneSignal knows."""
    if isinstance(loaded, CampaignInput):
        return work.total
    sizes = loaded.audiences.items()
    if any(size.uncounted for _, size in sizes):
        return None
    return sum(size.jobs if audience.kind == "update_user" else size.recipients for audience, size in sizes)


def deliveries(loaded: LoadedInput, work: Work, settings: Settings) -> Mapping[str, int | None]:
    """Return how much a run delivers for each app that it sends messages for; None where only OneSignal knows."""
    counts: dict[str, int | None] = {}
    for audience, size in loaded.audiences.items():
        if audience.kind == "update_user":
            continue
        recipients = work.total if isinstance(loaded, CampaignInput) else size.recipients
        before = counts.get(audience.app, 0)
        counts[audience.app] = None if before is None or size.uncounted else before + recipients
    return {
        app: None if count is None else ceil(count * settings.apps[app].deliveries_per_recipient)
        for app, count in counts.items()
    }


def held_s(limits: Iterable[Limit]) -> float:
    """Return how long the application limit holds the run at least."""
    return max((each.windows for each in limits), default=0) * APPLICATION_WINDOW_S


def _lane(app: str, kind: str) -> str:
    return f"{app}/{kind}"


def _requests(work: Work, *, is_exact: bool) -> int:
    with closing(work.items()) as items:  # type: ignore[type-var]  # work gives generators
        counts = [item.count for item in (items if is_exact else islice(items, _SAMPLE))]
    if is_exact or len(counts) < _SAMPLE:
        return len(counts)
    return ceil(work.total * len(counts) / sum(counts))


def _requests_of_jobs(loaded: JobsInput, settings: Settings) -> Mapping[str, int]:
    """At most one a job, and more for those with more recipients than fit one; equal messages share requests."""
    requests: Counter[str] = Counter()
    for audience, size in loaded.audiences.items():
        requests[_lane(audience.app, audience.kind)] += size.jobs
        if audience.kind != "update_user":
            full = size.recipients // settings.batching.max_recipients_per_request
            requests[_lane(audience.app, audience.kind)] += full if size.recipients > size.jobs else 0
    return dict(requests)
