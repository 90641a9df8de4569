"""The plots of one result.

Units: as `sendengine.bench.result` has them.
"""

from typing import Final

from sendengine.bench.plots import Line, latency_plot, rate_plot
from sendengine.bench.result import Result

RATES: Final = "rate.svg"
LATENCIES: Final = "latency.svg"


def plots(result: Result) -> list[tuple[str, str]]:
    """Draw rates against ceilings over time, and latencies by percentile: names of files and their texts."""
    title = f"sendengine bench: {offer(result)}, {target(result)}"
    about = f"{result.started_at}, {result.machine}" + (f"; {result.why}" if result.partial else "")
    rates = rate_plot(_rates(result), title=title, subtitle=about, command=result.command, unit="a second")
    curves = [Line(name, points) for name, points in result.curves.items()]
    latencies = latency_plot(
        curves, title=title, subtitle=f"From the intended start of a job to its end. {about}", command=result.command
    )
    return [(RATES, rates), (LATENCIES, latencies)]


def offer(result: Result) -> str:
    """Say what was offered: ``7,000 jobs/s for 10 s``."""
    options = result.options
    rate = "as fast as it goes" if options.rate is None else f"{options.rate:,.10g} jobs/s"
    return f"{rate} for {result.seconds:,.3g} s"


def target(result: Result) -> str:
    """Say where it went: ``to a mock server at 100 ms``."""
    options = result.options
    if options.latency_ms is None:
        return f"to {result.target}"
    latency = f"{options.latency_ms:g} ms"
    if options.latency_p99_ms:
        latency += f" (p99 {options.latency_p99_ms:g} ms)"
    return f"to a mock server at {latency}"


def _rates(result: Result) -> list[Line]:
    lines = [
        Line(
            f"{name}: requests",
            [(second.at_s, second.requests_per_s.get(name, 0.0)) for second in result.timeline],
            lane.ceiling,
        )
        for name, lane in result.lanes.items()
    ]
    offered = [(second.at_s, second.offered_per_s) for second in result.timeline]
    accepted = [(second.at_s, second.accepted_per_s) for second in result.timeline]
    return [*lines, Line("jobs offered", offered), Line("jobs accepted", accepted)]
