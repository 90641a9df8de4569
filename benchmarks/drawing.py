"""What the benchmarks draw: rates against their ceilings over time, and latencies by percentile.

Units: seconds since the first request of a turn; requests a second; milliseconds.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from benchmarks.atceilings import Timed
from sendengine.bench.plots import Line, latency_plot, percentile_points, rate_plot

_STEPS: Final = 120  # of a rate's line
_SHORTEST_S: Final = 0.5


def rates(instants_s: Sequence[float]) -> list[tuple[float, float]]:
    """Count instants in equal stretches, the last one left out since it may be cut; rates stand in the middle."""
    if not instants_s:
        return []
    first_s, last_s = min(instants_s), max(instants_s)
    step_s = max(_SHORTEST_S, (last_s - first_s) / _STEPS)
    counts = Counter(int((at_s - first_s) / step_s) for at_s in instants_s)
    whole = int((last_s - first_s) / step_s)
    return [((number + 0.5) * step_s, counts[number] / step_s) for number in range(whole)]


def rate_drawing(
    arrivals_s: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    ceilings: Mapping[str, float],
    title: str,
    command: str,
) -> str:
    """Draw what was accepted of each contestant in each lane, against the lanes' ceilings."""
    drawn = [
        Line(f"{kind}: {lane}", rates(instants_s), ceilings[lane] if number == 0 else None)
        for number, (kind, lanes) in enumerate(arrivals_s.items())
        for lane, instants_s in lanes.items()
    ]
    return rate_plot(drawn, title=title, command=command, subtitle="accepted, by the server's count")


def latency_drawing(timed: Mapping[str, Timed], *, title: str, command: str) -> str:
    """Draw each contestant's latency from the intended start, and what of it an engine has added."""
    drawn = [Line(f"{kind}, in all", percentile_points(each.total)) for kind, each in timed.items()]
    drawn += [
        Line(f"{kind}, added", percentile_points(each.added)) for kind, each in timed.items() if each.added is not None
    ]
    return latency_plot(drawn, title=title, command=command, subtitle="from the instant a job was meant to come")
