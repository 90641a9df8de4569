"""A lane's permits: waits for one, slows down, holds, reopens; in no second more than the ceiling.

Units: rates are permits a second; ``_s`` is seconds on the running loop's clock. One permit is one request.

Method: one central pacer a lane. Waiters are futures in two queues; while anybody waits, a timer of whole
milliseconds hands out every whole permit at once, high before normal, each in order of arrival. The arithmetic is
`sendengine.core.bucket`'s; how deep and how fast the bucket may be is said in `sendengine.core.bound`.
"""

import asyncio
from collections import deque
from math import inf
from typing import Final

from sendengine.core.bound import COOLED_S, WARM_UP_S, Allowance, Audit, safe_rate, warm_share
from sendengine.core.bucket import SLOWEST_RATE, Bucket
from sendengine.core.stalls import StallWatch

NORMAL_EVERY: Final = 10
"""While high ones wait too, each tenth permit is a normal one's, and each tenth request that is taken."""


class GateClosedError(Exception):
    """The gate is closed, so there will be no permit: an internal signal between lane and worker, not an error.

    It is no SendEngineError because it never leaves the engine: the worker gives its connection and its
    request back, and asks again when the gate is open.
    """


class Limiter:
    """Hands out permits at no more than ``safe_rate(ceiling)``; starts open, at that rate, with a full bucket.

    One that ``warms_up`` goes slower for a moment when somebody waits for the first time in COOLED_S: for whoever opens
    connections then. While ``stalls`` sees the server stall, those who wait get nothing, and nothing is made up for.

    Belongs to one event loop, and is not thread-safe. A permit that was granted and is not used stays spent.
    """

    __slots__ = (
        "_allowance",
        "_asked_rate",
        "_audit",
        "_begun_s",
        "_bucket",
        "_ceiling",
        "_closings",
        "_due_s",
        "_granted",
        "_is_closed_for_good",
        "_is_open",
        "_is_warming_up",
        "_loop",
        "_queues",
        "_since_s",
        "_stalls",
        "_timer",
        "_waited_s",
        "_waiting",
        "_warms_up",
    )

    def __init__(self, *, ceiling: float, warms_up: bool = False, stalls: StallWatch | None = None) -> None:
        self._ceiling = ceiling
        self._stalls = stalls
        self._warms_up = warms_up and ceiling * WARM_UP_S > 1  # below, it would be over before the next permit
        self._is_warming_up = False
        self._begun_s = -inf  # when somebody waited for the first time in COOLED_S,
        self._waited_s = -inf  # and when somebody waited last
        self._allowance = Allowance()
        self._asked_rate = ceiling
        self._bucket = Bucket(safe_rate(ceiling), pause_s=self._allowance.pause_s)
        self._queues = _Queues()
        self._waiting = 0  # in the queues, less those cancelled
        self._audit = Audit()
        self._granted = 0
        self._since_s = 0.0  # since when somebody has waited and the bucket held less than a permit
        self._due_s = 0.0  # when the timer fires, if there is one
        self._is_open = True
        self._is_closed_for_good = False
        self._closings = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def try_permit(self) -> bool:
        """Take a permit at once, or return False: somebody waits, the gate is closed, or there is none."""
        if self._waiting or not self._is_open:
            return False
        now_s = (self._loop or self._bound_loop()).time()
        if not self._bucket.try_take(now_s):
            return False
        self._granted += 1
        self._audit.record(1, now_s=now_s)
        return True

    async def permit(self, *, high: bool = False) -> None:
        """Wait for a permit; high ones go first, but normal ones keep at least a tenth.

        Raises GateClosedError where the gate is closed, or closes meanwhile. Cancelling costs nobody a permit:
        one granted already goes to the next who waits.
        """
        if not self._waiting and self.try_permit():
            return
        if not self._is_open:
            raise GateClosedError
        closings = self._closings
        waiter: asyncio.Future[None] = (self._loop or self._bound_loop()).create_future()
        self._queues.join(waiter, high=high)
        self._waiting += 1
        if self._timer is None:
            self._begin()
        try:
            await waiter
        except asyncio.CancelledError:
            self._leave(waiter, is_counted=closings == self._closings)
            raise
        finally:
            del waiter  # the GateClosedError that it holds holds this frame: a cycle, left to the rare collections
        if closings != self._closings:  # between the grant and this line: nothing may be sent now
            raise GateClosedError

    def close_gate(self) -> None:
        """Give no permits, and let none accrue, until `open_gate`; everybody who waits gets GateClosedError."""
        self._is_open = False
        self._closings += 1
        self._waiting = 0
        self._stop_timer()
        self._queues.dismiss()

    def open_gate(self, *, rate: float) -> None:
        """Open with an empty bucket that fills at ``rate``, clamped as in `set_rate`."""
        if not self._is_closed_for_good:
            self._asked_rate = rate
            self._replace_bucket(permits=0.0)
            self._is_open = True

    def set_rate(self, rate: float) -> None:
        """Go on at ``rate``, clamped to between one permit a minute and the ceiling's safe rate.

        It never grants a burst: the new bucket holds only the part of a permit that the old one had, so that
        frequent changes starve nobody. While the gate is closed it changes nothing.
        """
        if self._is_open and rate != self._asked_rate:
            self._asked_rate = rate
            self._fit_bucket()

    async def aclose(self) -> None:
        """Stop for good: whoever waits gets GateClosedError, and no timer is left."""
        self._is_closed_for_good = True
        self.close_gate()

    @property
    def rate(self) -> float:
        """Permits a second now; 0 while the gate is closed."""
        return self._safe_rate() if self._is_open else 0.0

    @property
    def ceiling(self) -> float:
        """What no second may exceed."""
        return self._ceiling

    @property
    def waiting(self) -> int:
        """How many wait for a permit."""
        return self._waiting

    @property
    def granted(self) -> int:
        """Permits granted so far."""
        return self._granted

    @property
    def most_in_one_second(self) -> int:
        """The most permits in any one second so far, by a count that knows nothing of the bucket."""
        return self._audit.most

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<Limiter {state} rate={self.rate:g} ceiling={self._ceiling:g} waiting={self._waiting}>"

    def _bound_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop

    def _leave(self, waiter: asyncio.Future[None], *, is_counted: bool) -> None:
        """Undo a cancelled wait: what the waiter had been granted goes on to the next."""
        if waiter.cancelled():
            self._waiting -= is_counted
        elif waiter.exception() is None and self._waiting:
            self._waiting -= self._queues.hand_out(1)

    def _begin(self) -> None:
        """Look at the bucket from now on."""
        if self._warms_up:
            now_s = self._bound_loop().time()
            if now_s - self._waited_s > COOLED_S:
                self._is_warming_up = True
                self._begun_s = now_s
                self._fit_bucket()
        self._schedule()

    def _schedule(self) -> None:
        """See to it that the next look at the bucket is no later than it need be; never puts one off."""
        loop = self._bound_loop()
        now_s = loop.time()
        due_s = now_s + self._bucket.next_in_s(now_s=now_s)
        if self._timer is None:
            self._since_s = now_s
        elif self._due_s <= due_s:
            return
        else:
            self._timer.cancel()
        self._due_s = due_s
        self._timer = loop.call_at(due_s, self._tick)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Hand out every whole permit that is there, and look again later if anybody still waits."""
        self._timer = None
        now_s = self._bound_loop().time()
        away_s = now_s - self._since_s
        if self._stalls is not None and self._stalls.has_stalled(now_s=now_s):
            self._replace_bucket(permits=0.0)
        count = min(self._waiting, self._bucket.whole_permits(now_s=now_s))
        if count:
            self._bucket.take(count, now_s=now_s)
            self._granted += count
            self._audit.record(count, now_s=now_s)
            self._waiting -= self._queues.hand_out(count)
            if self._stalls is not None:
                self._stalls.sent(now_s=now_s)
        self._waited_s = now_s
        if self._allowance.was_refitted(away_s, spare_s=1 / self._bucket.rate, now_s=now_s) or self._is_warming_up:
            self._is_warming_up = now_s - self._begun_s < WARM_UP_S
            self._fit_bucket()
        if self._waiting:
            self._schedule()

    def _fit_bucket(self) -> None:
        """Carry no whole permit over into the bucket for what is asked and allowed now."""
        if (self._safe_rate(), self._allowance.pause_s) != (self._bucket.rate, self._bucket.pause_s):
            self._replace_bucket(permits=self._bucket.permits(now_s=self._bound_loop().time()) % 1)
            if self._waiting:
                self._schedule()

    def _replace_bucket(self, *, permits: float) -> None:
        now_s = self._since_s = self._bound_loop().time()
        self._bucket = Bucket(self._safe_rate(), pause_s=self._allowance.pause_s, now_s=now_s, permits=permits)

    def _safe_rate(self) -> float:
        highest = safe_rate(self._ceiling, level=self._allowance.rate_level)
        if self._is_warming_up:
            highest *= warm_share(self._bound_loop().time() - self._begun_s)
        return max(min(self._asked_rate, highest), min(SLOWEST_RATE, highest))


class _Queues:
    """Those who wait, high and normal, each in order of arrival; the cancelled stay until their turn."""

    __slots__ = ("_high", "_high_in_a_row", "_normal")

    def __init__(self) -> None:
        self._high: deque[asyncio.Future[None]] = deque()
        self._normal: deque[asyncio.Future[None]] = deque()
        self._high_in_a_row = 0

    def join(self, waiter: asyncio.Future[None], *, high: bool) -> None:
        (self._high if high else self._normal).append(waiter)

    def hand_out(self, count: int) -> int:
        """Wake up to ``count`` waiters, and return how many: fewer where some were cancelled a moment ago."""
        high, normal, in_a_row, left = self._high, self._normal, self._high_in_a_row, count
        while left and (high or normal):
            is_high = bool(high) and not (normal and in_a_row >= NORMAL_EVERY - 1)
            waiter = (high if is_high else normal).popleft()
            if not waiter.done():
                waiter.set_result(None)
                in_a_row = in_a_row + 1 if is_high else 0
                left -= 1
        self._high_in_a_row = in_a_row
        return count - left

    def dismiss(self) -> None:
        """Send everybody away with GateClosedError."""
        for queue in (self._high, self._normal):
            while queue:
                waiter = queue.popleft()
                if not waiter.done():
                    waiter.set_exception(GateClosedError())
