"""A benchmark's result for a person: figures by lane, at most 60 columns wide.

Units: as `sendengine.bench.result` has them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sendengine.bench.compare import Change, Comparison
from sendengine.bench.drawing import offer, target
from sendengine.bench.result import Lane, Latency, Result
from sendengine.cli.output import ceiling

_NAME: Final = 24
_CELL: Final = 18
_CHANGE_NAME: Final = 32
_SHOWN: Final[Mapping[str, str]] = {"create_notification": "notifications", "update_user": "user updates"}
_PERCENTILES: Final = {"p50": "p50_ms", "p90": "p90_ms", "p99": "p99_ms", "p99.9": "p99_9_ms", "max": "max_ms"}

_Cell = Callable[[Lane], str]


def result_lines(result: Result) -> Iterator[str]:
    """Lay a result out."""
    yield f"Offered {offer(result)}"
    yield f"{target(result)}."
    if result.partial:
        yield f"PARTIAL: {result.why}."
    if result.lanes:
        yield ""
        yield from _table(result.lanes)
    yield ""
    yield from _client(result)


def comparison_lines(comparison: Comparison) -> Iterator[str]:
    """Lay a comparison out, what may spoil it first."""
    yield f"Against {comparison.old_started_at} (ratio: new / old)"
    for caution in comparison.cautions:
        yield f"  caution: {caution}"
    yield f"{'':<{_CHANGE_NAME}}{'old':>10}{'new':>10}{'ratio':>8}"
    for change in comparison.changes:
        yield _changed(change)


def _table(lanes: Mapping[str, Lane]) -> Iterator[str]:
    yield _row("", lambda _: "", lanes, heads=[_SHOWN.get(name, name) for name in lanes])
    yield _row("jobs/s offered", lambda lane: f"{lane.offered_per_s:,.0f}", lanes)
    yield _row("jobs/s accepted", lambda lane: f"{lane.accepted_per_s:,.0f}", lanes)
    yield _row("requests/s", lambda lane: f"{lane.requests_per_s:,.0f}", lanes)
    yield _row("  ceiling", lambda lane: "lifted" if lane.ceiling is None else ceiling(lane.ceiling), lanes)
    yield _row("  share of it", _share, lanes)
    yield _row("  worst second", lambda lane: f"{lane.most_in_one_second:,}", lanes)
    if any(lane.server for lane in lanes.values()):
        yield _row("    as the server saw it", _seen, lanes)
    yield _row("429s", lambda lane: f"{lane.throttled:,}", lanes)
    for name, cell in _TROUBLES.items():
        if any(cell(lane) for lane in lanes.values()):
            yield _row(name, lambda lane, cell=cell: f"{cell(lane):,}", lanes)  # type: ignore[misc]
    yield _row("bound by", _bound, lanes)
    yield from _latencies(lanes)


_TROUBLES: Final[Mapping[str, Callable[[Lane], int]]] = {
    "retries": lambda lane: lane.retries,
    "replies lost": lambda lane: lane.lost,
    "no connection": lambda lane: lane.not_sent,
    "jobs not accepted": lambda lane: sum(lane.outcomes.values()) - lane.accepted,
    "jobs not settled": lambda lane: lane.unsettled,
}


def _latencies(lanes: Mapping[str, Lane]) -> Iterator[str]:
    for urgency, head in (("normal", "ms from intended start"), ("high", "ms, high jobs")):
        if not any(urgency in lane.latency for lane in lanes.values()):
            continue
        yield head
        for label, field in _PERCENTILES.items():
            yield _row(f"  {label}", _field(urgency, field), lanes)
    yield "ms from write to reply"
    yield _row("  p50", lambda lane: _ms(lane.reply.p50_ms), lanes)
    yield _row("  p99", lambda lane: _ms(lane.reply.p99_ms), lanes)


def _field(urgency: str, field: str) -> _Cell:
    def cell(lane: Lane) -> str:
        latency: Latency | None = lane.latency.get(urgency)
        return "–" if latency is None else _ms(getattr(latency, field))

    return cell


def _client(result: Result) -> Iterator[str]:
    cpu = result.cpu
    yield f"CPU of the client: {100 * cpu.cores:.0f} % of a core"
    if cpu.us_per_request is not None and cpu.us_per_job is not None:
        yield f"  {cpu.us_per_request:,.0f} µs a request, {cpu.us_per_job:,.0f} µs a job"
    yield f"  ({cpu.user_s:,.1f} s user, {cpu.system_s:,.1f} s system)"
    yield f"longest pause of the loop: {_ms(result.longest_pause_ms)} ms"
    yield f"submitted after the intended start: {_ms(result.submitted_late_ms)} ms (p99)"
    if result.machine.is_busy:
        yield f"The machine was busy before (load {result.machine.load:g}): these"
        yield "figures say little but beside others of the same hour."


def _row(name: str, cell: _Cell, lanes: Mapping[str, Lane], *, heads: list[str] | None = None) -> str:
    cells = heads if heads is not None else [cell(lane) for lane in lanes.values()]
    return f"{name:<{_NAME}}{''.join(f'{text:>{_CELL}}' for text in cells)}".rstrip()


def _share(lane: Lane) -> str:
    return "–" if not lane.ceiling else f"{100 * lane.requests_per_s / lane.ceiling:.1f} %"


def _seen(lane: Lane) -> str:
    return "–" if lane.server is None else f"{lane.server.most_in_one_second:,}"


def _bound(lane: Lane) -> str:
    if not lane.bound_by:
        return "–"
    cause = max(lane.bound_by, key=lane.bound_by.__getitem__)
    return f"{cause} {100 * lane.bound_by[cause]:.0f} %"


def _ms(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004 - three digits tell enough


def _changed(change: Change) -> str:
    ratio = "–" if change.ratio is None else f"{change.ratio:.3f}"
    name = change.what
    for long, short in _SHOWN.items():
        name = name.replace(long, short)
    return f"{name:<{_CHANGE_NAME}}{_figure(change.old):>10}{_figure(change.new):>10}{ratio:>8}"


def _figure(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"  # noqa: PLR2004 - as above
