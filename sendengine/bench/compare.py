"""Says what changed between two results: a ratio for each figure, and why it may mean little.

Units: as `sendengine.bench.result` has them; a ratio is new by old.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from msgspec import Struct, structs

from sendengine.bench.machine import Machine
from sendengine.bench.result import Latency, Options, Result

_PERCENTILES: Final = (("p50", "p50_ms"), ("p90", "p90_ms"), ("p99", "p99_ms"), ("p99.9", "p99_9_ms"))


class Change(Struct, frozen=True):
    """One figure, before and after; None where one of them did not have it. ``ratio`` None where old is none or 0."""

    what: str
    old: float | None
    new: float | None
    ratio: float | None


class Comparison(Struct, frozen=True):
    """All of them, and the ``cautions``: what else was different."""

    old_started_at: str
    changes: list[Change]
    cautions: list[str]


def compared(old: Result, new: Result) -> Comparison:
    """Compare two results, figure by figure."""
    before, after = figures(old), figures(new)
    changes = [_change(name, before.get(name), after.get(name)) for name in {**after, **before}]
    return Comparison(old.started_at, changes, list(_cautions(old, new)))


def figures(result: Result) -> dict[str, float]:
    """List what can be compared, by name."""
    found: dict[str, float] = {}
    for name, lane in result.lanes.items():
        found[f"{name}: accepted jobs/s"] = lane.accepted_per_s
        found[f"{name}: requests/s"] = lane.requests_per_s
        found[f"{name}: worst second"] = lane.most_in_one_second
        found[f"{name}: 429s"] = lane.throttled
        for urgency, latency in lane.latency.items():
            found |= _percentiles(f"{name}: {'high, ' if urgency == 'high' else ''}", latency)
    found["CPU, cores"] = result.cpu.cores
    if result.cpu.us_per_request is not None:
        found["CPU, µs a request"] = result.cpu.us_per_request
    if result.cpu.us_per_job is not None:
        found["CPU, µs a job"] = result.cpu.us_per_job
    found["longest pause, ms"] = result.longest_pause_ms
    return found


def _percentiles(prefix: str, latency: Latency) -> dict[str, float]:
    return {f"{prefix}{label} ms": getattr(latency, field) for label, field in _PERCENTILES}


def _change(what: str, old: float | None, new: float | None) -> Change:
    ratio = round(new / old, 4) if old and new is not None else None
    return Change(what, old, new, ratio)


def _cautions(old: Result, new: Result) -> Iterator[str]:
    for name, result in (("the old one", old), ("this one", new)):
        if result.partial:
            yield f"{name} ended early: {result.why}"
        if result.machine.is_busy:
            yield f"{name} began on a machine with a load of {result.machine.load:g}: others were at work"
    yield from _differing("options", _plain(old.options), _plain(new.options))
    if (old.options.latency_ms is None or new.options.latency_ms is None) and old.target != new.target:
        yield f"another server: {old.target} → {new.target}"
    yield from _differing("machine", _machine(old.machine), _machine(new.machine))
    yield from _differing("versions", _versions(old.machine), _versions(new.machine))


def _plain(options: Options) -> Mapping[str, object]:
    return structs.asdict(options)


def _machine(machine: Machine) -> Mapping[str, object]:
    return {"system": machine.system, "processor": machine.processor, "cores": machine.cores}


def _versions(machine: Machine) -> Mapping[str, object]:
    return {"python": machine.python, **machine.packages}


def _differing(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> Iterator[str]:
    changed = [
        f"{name} {_shown(old.get(name))} → {_shown(new.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if changed:
        yield f"other {what}: {', '.join(changed)}"


def _shown(value: object) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
