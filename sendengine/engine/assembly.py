"""Puts the parts of an engine together: apps with their transports and guards, lanes with theirs.

Units: ceilings are requests a second.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial

import msgspec

from sendengine.core.backoff import BackoffController, Learned
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.packing import Packer
from sendengine.core.stalls import StallWatch
from sendengine.engine.app import App
from sendengine.engine.books import Books
from sendengine.engine.connections import ConnectionBudget
from sendengine.engine.custody import Custody
from sendengine.engine.intake import Intake
from sendengine.engine.keys import new_key
from sendengine.engine.lane import Lane
from sendengine.engine.notifications import NotificationSource
from sendengine.engine.pace import Pace
from sendengine.engine.receipts import Receipt
from sendengine.engine.retries import Retries
from sendengine.engine.source import Source
from sendengine.engine.users import UserSource
from sendengine.journal.learned import lane_key
from sendengine.limiter import Limiter
from sendengine.ports import Observer
from sendengine.settings import AppSettings, Settings
from sendengine.telemetry.counters import LaneCounters

LearnedRates = Mapping[str, Mapping[str, float | None]]
"""What lanes learned in earlier runs, as the file keeps it."""


def make_lane(  # noqa: PLR0913 - what a lane shares with its engine, all named at the one call
    app: App,
    group: EndpointGroup,
    *,
    settings: Settings,
    learned: LearnedRates,
    connections: ConnectionBudget,
    observer: Observer | None,
    custody: Custody | None,
    when_settled: Callable[[Receipt], None],
    when_crashed: Callable[[str, BaseException], None],
    lanes: int,
    now_s: float,
) -> Lane:
    """Make one lane. ``lanes`` is how many share the bound on bytes."""
    name = f"{app.name}/{group.value}"
    ceiling = app.settings.ceiling(group)
    intake = Intake(max_jobs=settings.intake.max_jobs, max_bytes=settings.intake.max_bytes // lanes)
    books = Books(
        lane=name,
        intake=intake,
        observer=observer,
        custody=custody,
        when_settled=when_settled,
        when_crashed=partial(when_crashed, "the observer"),
    )
    controller = BackoffController(
        ceiling=ceiling,
        missing_retry_after_s=settings.retry.missing_retry_after_s,
        now_s=now_s,
        learned=_learned(learned, app=app.settings, group=group),
    )
    stalls = StallWatch(app.replies)
    return Lane(
        name=name,
        group=group,
        app=app,
        source=_source(app, group, settings=settings, books=books),
        intake=intake,
        books=books,
        pace=Pace(
            lane=name,
            limiter=Limiter(ceiling=ceiling, warms_up=True, stalls=stalls),
            controller=controller,
        ),
        stalls=stalls,
        retries=Retries(
            lane=name, lost_reply_wait_s=settings.retry.lost_reply_wait_s, chance=random.random, now_s=now_s
        ),
        counters=LaneCounters(),
        custody=custody,
        connections=connections,
        missing_retry_after_s=settings.retry.missing_retry_after_s,
        when_crashed=partial(when_crashed, "a worker"),
    )


def _source(app: App, group: EndpointGroup, *, settings: Settings, books: Books) -> Source:
    batching = settings.batching
    if group is EndpointGroup.UPDATE_USER:
        return UserSource(app_id=app.settings.app_id, max_modifications=batching.max_modifications_per_request)
    packer: Packer[Receipt] = Packer(
        max_recipients=batching.max_recipients_per_request,
        max_bytes=batching.max_request_bytes,
        linger_s=batching.linger_ms / 1000,
    )
    return NotificationSource(
        app_id=app.settings.app_id,
        deliveries_per_recipient=app.settings.deliveries_per_recipient,
        recipients_per_request=batching.max_recipients_per_request,
        packer=packer,
        guard=app.guard,
        new_key=new_key,
        chance=random.random,
        book=books.book,
    )


def _learned(rates: LearnedRates, *, app: AppSettings, group: EndpointGroup) -> Learned | None:
    numbers = rates.get(lane_key(app_id=app.app_id, group=group.value))
    return None if numbers is None else msgspec.convert(numbers, Learned)
