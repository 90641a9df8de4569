"""What ``SendEngine.stats()`` returns: frozen, taken at one instant, and cheap enough for every second.

Units: ``_s`` is seconds, ``_ms`` milliseconds; rates and ceilings are requests a second; ``…_at_s`` and
``…_until_s`` are seconds since the epoch, so that a person can be told the time.
"""

from collections.abc import Mapping

from msgspec import Struct


class LaneStats(Struct, frozen=True, kw_only=True):
    """One lane: one endpoint group of one app.

    ``depth`` jobs and requests wait, and the oldest has waited for ``oldest_age_s`` (0 where none waits).
    ``rate`` is what the lane may send now, ``ceiling`` what it never exceeds.
    ``hold`` says why nothing is sent, None where the lane is open; ``hold_until_s`` is when it opens, None where it
    is open or a person has to act. ``in_flight`` requests await their replies; ``connections`` is how many the lane
    holds room for at once: over HTTP/1.1 as many connections, over HTTP/2 as many streams.
    ``throttled`` counts 429s, ``epochs`` their bursts. ``most_in_one_second`` is the limiter's audit of what was sent
    since the start. ``replies`` counts by status. ``share_of_application_limit`` is how much of what the app may
    deliver in fifteen minutes is used, from 0 to 1: None where the guard is off or the lane delivers nothing.
    """

    depth: int
    oldest_age_s: float
    rate: float
    ceiling: float
    hold: str | None
    hold_until_s: float | None
    in_flight: int
    connections: int
    requests: int
    replies: Mapping[int, int]
    retries: int
    throttled: int
    epochs: int
    most_in_one_second: int
    latency_p50_ms: float
    latency_p99_ms: float
    latency_max_ms: float
    share_of_application_limit: float | None


class AppStats(Struct, frozen=True, kw_only=True):
    """One app, over all its lanes.

    ``held`` says why nothing of the app is sent and what reopens it, None where it is not held. ``held_channels`` are
    those that OneSignal refuses to the app, so that what is for them waits. ``subscribed_users`` is
    what the application limit rests on, None where it is not known and the guard is off. ``delivered`` counts what
    was reserved in the fifteen minutes that end now, by every engine on the machine; the guard stops at
    ``application_limit``. ``connections`` are open and carry up to ``streams`` requests at once, which over HTTP/1.1 is
    one each; ``protocol`` is what the last one to be opened speaks, "h2" or "http/1.1", None where none was yet.
    """

    held: str | None
    held_channels: tuple[str, ...] = ()
    subscribed_users: int | None
    delivered: int
    application_limit: int | None
    connections: int = 0
    streams: int = 0
    protocol: str | None = None


class EngineStats(Struct, frozen=True, kw_only=True):
    """An engine. Lanes are named ``app/endpoint_group``, as in ``report.json``.

    ``longest_pause_s`` is the longest that the event loop was kept from its work while the engine was busy: what
    pauses it costs rate.
    """

    taken_at_s: float
    lanes: Mapping[str, LaneStats]
    apps: Mapping[str, AppStats]
    longest_pause_s: float
