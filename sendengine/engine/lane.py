"""A lane: one rate-limited endpoint group of one app, from admitted jobs to requests in workers' hands.

Workers take from it in this order: what is high, what came back (throttled, retried), then what its source seals.
Of its source it takes only what it will have a permit for soon (`sendengine.engine.pace.LOOKAHEAD_S`), so that a
backlog goes on packing and coalescing instead of queueing sealed requests. Every decision is one synchronous step;
nothing changes across an ``await``. What the end of an attempt means for a request is decided in
`sendengine.engine.endings`.

Units: seconds on the running loop's clock; rates in requests a second.
"""

import asyncio
from collections.abc import Callable
from itertools import islice
from typing import Final

from sendengine.core.onesignal import EndpointGroup
from sendengine.core.outcomes import Expired, Outcome
from sendengine.core.stalls import StallWatch
from sendengine.core.verdicts import Took
from sendengine.engine import endings
from sendengine.engine.alarm import Alarm, earliest
from sendengine.engine.app import App
from sendengine.engine.books import Books
from sendengine.engine.connections import ConnectionBudget
from sendengine.engine.custody import Custody
from sendengine.engine.deadlines import SealedDeadlines
from sendengine.engine.intake import Intake
from sendengine.engine.leaving import Leaving
from sendengine.engine.pace import Pace
from sendengine.engine.pool import WorkerPool
from sendengine.engine.receipts import Receipt
from sendengine.engine.recounted import COUNTED_S, weight_again
from sendengine.engine.retries import Retries
from sendengine.engine.returns import Returns
from sendengine.engine.sealed import Sealed
from sendengine.engine.source import AT_ONCE, Resolution, Source
from sendengine.engine.worker import StaleRequestError, Worker
from sendengine.limiter import NORMAL_EVERY, GateClosedError
from sendengine.telemetry.counters import LaneCounters

_LIMIT_REACHED: Final = "the application limit has no room, and its policy is to reject"
_PASSED: Final = 64  # requests that are not sent, in one turn of the loop: about a millisecond of work


class Lane:
    """Queues, workers and gates of one lane; its parts are made by `sendengine.engine.assembly`."""

    def __init__(  # noqa: PLR0913 - a lane is where the parts meet, all named at the one call
        self,
        *,
        name: str,
        group: EndpointGroup,
        app: App,
        source: Source,
        intake: Intake,
        books: Books,
        pace: Pace,
        stalls: StallWatch,
        retries: Retries,
        counters: LaneCounters,
        custody: Custody | None,
        connections: ConnectionBudget,
        missing_retry_after_s: float,
        when_crashed: Callable[[BaseException], None],
    ) -> None:
        self.name = name
        self.group = group
        self.app = app
        self.source = source
        self.intake = intake
        self.books = books
        self.pace = pace
        self.stalls = stalls
        self.retries = retries
        self.counters = counters
        self.custody = custody
        self.missing_retry_after_s = missing_retry_after_s
        self.limiter = pace.limiter
        self.transport = app.transport
        self.loop = asyncio.get_running_loop()  # to find it is a system call each time
        self.time = self.loop.time
        self.in_flight = 0
        self.keeping = 0  # requests on their way to the disk
        self.pool = WorkerPool(
            name=name,
            app=app,
            connections=connections,
            make=lambda: Worker(self),
            when_crashed=when_crashed,
            when_ended=self.kick,
        )
        self._breaker = retries.breaker
        self._budget = retries.budget
        self.returns = Returns(retries)
        self._deadlines = SealedDeadlines()
        self._parked: dict[Sealed, None] = {}  # of a channel that is held
        self.approaching = 0  # taken, and waiting for the disk, a connection or a permit
        self._sequence = 0
        self._pulls = 0
        self._leaving = Leaving(self)
        self._alarm = Alarm(self._wake)
        self._is_stopped = False
        pace.when_open = self.kick

    def __repr__(self) -> str:
        return f"<Lane {self.name}: {self.waiting} waiting, {self.in_flight} in flight, {self.limiter.rate:.0f}/s>"

    # What the engine asks of it

    def admit(self, receipt: Receipt, *, content: bytes, now_s: float) -> None:
        """Take a job whose room in the intake is paid for; ``content`` is what was rendered of it."""
        self.books.unsettled += 1
        self.source.add(receipt, content=content, now_s=now_s)
        self.added(receipt, now_s=now_s)

    def added(self, receipt: Receipt, *, now_s: float) -> None:
        """A job has been given to the source."""
        if self._is_stopped:  # it reached the disk too late
            self._leaving.abandon()
            return
        if receipt.deadline_s is not None:
            self._arm(now_s=now_s)
        self.kick()

    def kick(self) -> None:
        """Put a worker to work if there is something that may go; that one will put the next to work."""
        pool, lookahead = self.pool, self.pace.lookahead
        if self._is_stopped or (self.approaching + pool.waking >= lookahead and not self.intake.high_jobs):
            return  # as at the ceiling, most of the time: asked for each request, so it comes without a call
        if not pool.can_engage:
            return
        waiting = self.source.waiting + self.returns.count
        if not waiting:
            return
        busy = pool.busy
        if self.approaching + busy >= lookahead and not self._high_is_waiting():
            return
        # As many are on their way as there is to do at most: they see for themselves what of it may go, and when.
        if busy >= waiting and busy >= waiting + self.source.spread:
            return
        now_s = self.time()
        if self._may_send(now_s=now_s) and self.has_ready(now_s=now_s):
            pool.engage()
        else:
            self._arm(now_s=now_s)

    def resume(self) -> None:
        """The app is open again: what was set aside goes back to its place."""
        parked, self._parked = self._parked, {}
        for sealed in parked:
            self.returned(sealed)
        self.kick()

    def stop(self) -> None:
        """Put nothing more on the wire; what waits settles soon, as abandoned, and what is on the wire goes on."""
        if self._is_stopped:
            return
        self._is_stopped = True
        self.pace.close()
        self.limiter.close_gate()
        self._alarm.cancel()
        parked, self._parked = self._parked, {}
        self._leaving.abandon((*self.returns.drain_all(), *parked))

    async def empty(self) -> None:
        """Stop, and wait until all that waited has settled."""
        self.stop()
        await self._leaving.all_settled()

    async def aclose(self) -> None:
        """Cancel the workers; what is in their hands settles as abandoned."""
        await self.empty()
        await self.pool.aclose()
        await self.limiter.aclose()

    @property
    def waiting(self) -> int:
        """Jobs and requests that wait to be sent for the first time or again."""
        return self.source.waiting + self.returns.count + len(self._parked)

    @property
    def oldest_s(self) -> float | None:
        """Since when the oldest of what waits has waited; None where nothing does."""
        parked_s = min((sealed.sealed_at_s for sealed in self._parked), default=None)
        return earliest(parked_s, earliest(self.source.oldest_s, self.returns.oldest_s))

    @property
    def is_stuck(self) -> bool:
        """Whether what waits cannot go until a person does something, or, once it is stopped, ever."""
        is_held = self._is_stopped or self.app.is_held or (len(self._parked) == self.waiting and bool(self._parked))
        return is_held and not self.in_flight and not (self.keeping if self._is_stopped else self.approaching)

    # What workers ask of it

    def take(self) -> Sealed | None:
        """The next request for a worker's hands, or None: nothing may go now."""
        now_s = self.time()
        if self._is_stopped or (self.approaching >= 2 * self.pace.lookahead and not self._high_is_waiting()):
            return None
        waits = self.source.waiting or self.returns.count
        sealed = self._choose(now_s=now_s) if waits and self._may_send(now_s=now_s) else None
        if sealed is None:
            if waits or self._parked or self.source.pause_s:  # else nothing is due at any time: 5 % of a lone job
                self._arm(now_s=now_s)
            return None
        if sealed.is_probe or self._breaker.opened_at_s is not None:
            self.retries.take_probe(sealed, now_s=now_s)
        self.approaching += 1
        self.kick()
        return sealed

    def launch(self, sealed: Sealed) -> None:
        """Its permit is granted: it is written now.

        Raises StaleRequestError: its deadline has passed. GateClosedError: the gate has closed, or the lane stopped.
        """
        now_s = self.time()
        if self._is_stopped or not self.pace.is_open:
            raise GateClosedError
        if sealed.deadline_s is not None and now_s >= sealed.deadline_s:
            raise StaleRequestError
        sealed.launch(now_s=now_s)
        # It put the next one to work when it took this, so there is more to do only where that was too early, or slow.
        pool = self.pool
        may_do_more = pool.connecting or self.approaching + pool.waking >= self.pace.lookahead
        self.approaching -= 1
        self.in_flight += 1
        self.counters.sent(now_s=now_s)
        self.pace.sent(now_s=now_s)
        if sealed.attempts == 1:
            self._budget.earn(now_s=now_s)
        if may_do_more:
            self.kick()

    def land(self, sealed: Sealed) -> None:
        """The attempt is over, however it went; or it ended before it was on the wire."""
        if sealed.is_launched:
            sealed.is_launched = False
            self.in_flight -= 1
        else:
            self.approaching -= 1

    # How a request comes back

    def returned(self, sealed: Sealed) -> None:
        """Put a request back at the head, in its old order: it was not judged."""
        if self._is_stopped:
            endings.abandon(self, sealed)
            return
        if self.custody is not None:
            self.custody.landed(sealed)
        self.returns.push(sealed)
        self._deadlines.watch(sealed)
        self.kick()

    def enqueue(self, sealed: Sealed) -> None:
        """Line up a request that takes the place of another."""
        self._sequence += 1
        sealed.sequence = self._sequence
        self.returned(sealed)

    def again(self, sealed: Sealed, *, at_s: float, not_before_s: float | None = None) -> None:
        """Send it again at ``at_s``, or from ``not_before_s`` on where an outage ends in between."""
        if self._is_stopped:
            endings.abandon(self, sealed)
            return
        if self.custody is not None:
            self.custody.landed(sealed)
        earliest_s = sealed.sent_at_s + self.source.pause_s if sealed.first_sent_at_s is not None else 0.0
        soon_s = at_s if not_before_s is None else not_before_s
        self.returns.push_later(sealed, at_s=max(at_s, earliest_s), not_before_s=max(soon_s, earliest_s))
        self._deadlines.watch(sealed)
        self.kick()

    def outage_over(self, *, now_s: float) -> None:
        """Requests that wait only because nothing was answered may go as soon as that is safe."""
        self.returns.expedite(now_s=now_s)

    def close(
        self, sealed: Sealed, resolution: Resolution, *, now_s: float, outcome: Outcome | None, took: Took | None = None
    ) -> None:
        """A request is over: book what settled, and line up what takes its place."""
        self.books.close(
            sealed,
            resolution.settled,
            now_s=now_s,
            outcome=None if resolution.is_replaced else outcome,
            took=took,
        )
        if not self._is_stopped:
            for fresh in resolution.again:
                self.enqueue(fresh)
        elif resolution.again or resolution.is_replaced:
            self._leaving.abandon(resolution.again)

    # How it decides

    def _may_send(self, *, now_s: float) -> bool:
        app = self.app
        return (
            self.pace.is_open
            and not app.is_paused
            and (self._breaker.opened_at_s is None or self.retries.may_try(now_s=now_s))
            and not (app.guard.is_short and self.source.is_guarded)
        )

    def has_ready(self, *, now_s: float) -> bool:
        """Whether a request may be taken now, as far as can be told without taking it."""
        if self.returns.count and self.returns.is_due(now_s=now_s):
            return True
        due_s = self.source.next_due_s(now_s=now_s)
        return due_s is not None and due_s <= now_s

    def _high_is_waiting(self) -> bool:
        """Whether a high job may pass the bound on what approaches, which is for normal ones."""
        if not self.intake.high_jobs or self.approaching + self.pool.busy >= 3 * self.pace.lookahead:
            return False
        return self.source.has_high or self.returns.is_high

    def _choose(self, *, now_s: float) -> Sealed | None:
        """The next request that may go; those whose channel is held, and those rejected, are passed on the way.

        There may be tens of thousands of those, so only some are passed in one turn of the loop.
        """
        app, guard = self.app, self.app.guard
        passed = 0
        while passed < _PASSED and (sealed := self._next(now_s=now_s)) is not None:
            passed += 1
            if app.refuses_some and app.holds_channel(sealed.channel):
                self._parked[sealed] = None
                self._deadlines.watch(sealed)
                continue
            if sealed.is_counted and now_s < sealed.counts_until_s:
                return sealed
            weight = None if sealed.is_counted else sealed.weight
            if guard.admit(weight_again(sealed, app) if weight is None else weight, now_s=now_s):
                sealed.is_counted, sealed.counts_until_s = True, now_s + COUNTED_S
                return sealed
            if guard.rejects:
                endings.turn_away(self, sealed, why=_LIMIT_REACHED, now_s=now_s)
            else:
                self.returns.push(sealed)
                self._deadlines.watch(sealed)
                return None
        if passed == _PASSED or self.source.is_cut_short:
            self.loop.call_soon(self.kick)
        return None

    def _next(self, *, now_s: float) -> Sealed | None:
        returns = self.returns
        self._pulls += 1
        prefer_normal = self._pulls % NORMAL_EVERY == 0
        if returns.count:
            returns.ripen(now_s=now_s)
            has_high = self.source.has_high and not prefer_normal and not returns.is_high
            if returns.has_ready and not (has_high or self.retries.is_outage):
                return returns.pop()
        sealed = self.source.pull(now_s=now_s, prefer_normal=prefer_normal)
        if sealed is None:
            return returns.pop() if returns.count else None
        self._sequence += 1
        sealed.sequence = self._sequence
        return sealed

    def _expire(self, *, now_s: float) -> None:
        self.books.book([(receipt, ids, Expired(not_sent=ids)) for receipt, ids in self.source.expire(now_s=now_s)])
        # A copy, since what is lined up in their place comes by here again.
        for sealed in tuple(islice(self._deadlines.due(now_s=now_s), AT_ONCE)):
            if sealed in self._parked:
                del self._parked[sealed]
            else:
                self.returns.drop()
            endings.expired(self, sealed, now_s=now_s)

    def _arm(self, *, now_s: float) -> None:
        """Set the timer for the next instant at which something may go or expire."""
        expiry_s = earliest(self.source.next_expiry_s(), self._deadlines.next_s())
        if expiry_s is not None and expiry_s <= now_s:
            self._expire(now_s=now_s)
            expiry_s = now_s  # in the next turn: there may be more, and what they stood before may go
        at_s = earliest(expiry_s, self._next_try_s(now_s))
        if at_s is not None:
            self._alarm.set(at_s)

    def _next_try_s(self, now_s: float) -> float | None:
        """The next instant at which something may go that may not go now; in an outage, as a probe."""
        due_s = self.source.next_due_s(now_s=now_s)
        if self.returns.count:
            due_s = earliest(due_s, self.returns.next_s())
        if due_s is None:
            return None
        probe_s = self._breaker.next_probe_at_s
        if probe_s is not None:
            due_s = max(due_s, probe_s)
        return due_s if due_s > now_s else None

    def _wake(self) -> None:
        self._arm(now_s=self.time())
        self.kick()
