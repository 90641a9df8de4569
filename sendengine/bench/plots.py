"""Two plots as SVG text: rates against their ceilings over time, and latency by percentile.

Units: rates are per second, times seconds, latencies milliseconds, percentiles per cent.
Method: percentiles stand on the axis of an HDR histogram's plots, where each further nine takes the same room:
``log10(1 / (1 - p/100))``. Latencies stand on a logarithmic axis where they span more than a factor of thirty.
"""

from collections.abc import Iterator, Sequence
from math import ceil, floor, inf, isfinite, log10
from typing import Final

from msgspec import Struct

from sendengine.bench.svg import Axis, Curve, Point, Tick, drawing
from sendengine.telemetry.histogram import Histogram

_TICKS: Final = 8
_WIDE: Final = 30.0
_POINTS_A_NINE: Final = 12
_ROUND: Final = (1.0, 2.0, 5.0, 10.0)
_LEAST_NINES: Final = 2  # up to 99 %, whatever was measured
_THOUSAND: Final = 1000.0
_LEAST: Final = 0.001  # what is smaller stands at the foot of an axis
_MANY_DECADES: Final = 3  # more of them are marked by powers of ten alone


class Line(Struct, frozen=True):
    """One line: pairs of x and y, in the order of x.

    ``bound`` is what it is held against, drawn thin in its colour: a level, pairs that change with x, or None.
    """

    name: str
    points: Sequence[Point]
    bound: float | Sequence[Point] | None = None


def rate_plot(lines: Sequence[Line], *, title: str, command: str, subtitle: str = "", unit: str = "requests/s") -> str:
    """Draw rates over time: x in seconds, y in ``unit``; a line's bound is its ceiling.

    ``command`` stands in the footer, so that whoever sees the plot can repeat it. Raises ValueError where a number
    is not finite or below 0.
    """
    curves = _curves(lines, bound="ceiling")
    across = _linear("seconds since the start", _largest(curves, 0), is_tight=True)
    up = _linear(unit, _largest(curves, 1) * 1.05)
    return drawing(curves, across=across, up=up, title=title, subtitle=subtitle, footer=command)


def latency_plot(lines: Sequence[Line], *, title: str, command: str, subtitle: str = "") -> str:
    """Draw latencies by percentile: x in per cent, from 0 to below 100, y in milliseconds; a line's bound is its limit.

    ``percentile_points`` makes a line's points. Raises ValueError as `rate_plot`, and for 100 % and above.
    """
    curves = _curves(lines, bound="limit")
    if _largest(curves, 0) >= 100:  # noqa: PLR2004 - per cent
        raise ValueError("the axis of percentiles ends before 100 %; leave the maximum out")
    values = [y for curve in curves for _, y in curve.points if y >= _LEAST]
    lowest, highest = min(values, default=1.0), max(values, default=1.0)
    up = _logarithmic("ms, logarithmic", lowest, highest) if highest > _WIDE * lowest else _linear("ms", highest * 1.05)
    across = _percentiles(_largest(curves, 0))
    return drawing(curves, across=across, up=up, title=title, subtitle=subtitle, footer=command)


def percentile_points(histogram: Histogram) -> list[Point]:
    """Return a line's points for `latency_plot`, up to the percentile at which one of all remains; none of none."""
    count = histogram.count
    if not count:
        return []
    nines = max(1, floor(log10(count) * _POINTS_A_NINE))
    percents = [100 * (1 - 10 ** (-step / _POINTS_A_NINE)) for step in range(nines + 1)]
    return [(percent, histogram.percentile_ms(max(percent, 1e-9))) for percent in percents]


def _curves(lines: Sequence[Line], *, bound: str) -> list[Curve]:
    """Give each line its colour, and its bound a curve of its own, below it."""
    ends = [x for line in lines for x, _ in line.points]
    curves: list[Curve] = []
    for colour, line in enumerate(lines):
        curves.append(Curve(line.name, line.points, colour))
        if line.bound is None:
            continue
        if isinstance(line.bound, Sequence):
            curves.append(Curve(f"its {bound}", line.bound, colour, is_thin=True))
        else:
            points = [(0.0, line.bound), (max(ends, default=0.0), line.bound)]
            curves.append(Curve(f"its {bound}, {_short(line.bound)}", points, colour, is_thin=True))
    for curve in curves:
        if not all(isfinite(value) and value >= 0 for point in curve.points for value in point):
            raise ValueError(f"{curve.name}: a plot takes finite numbers from 0 up")
    return curves


def _largest(curves: Sequence[Curve], side: int) -> float:
    return max((point[side] for curve in curves for point in curve.points), default=0.0)


def _linear(title: str, largest: float, *, is_tight: bool = False) -> Axis:
    """An axis from 0 to the next round step; one that is tight ends with the largest value."""
    largest = max(largest, _LEAST)
    rough = largest / _TICKS
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in _ROUND if power * factor >= rough * 0.999999)
    steps = floor(largest / step + 1e-9) if is_tight else ceil(largest / step - 1e-9)
    end = largest if is_tight else steps * step
    ticks = tuple(Tick(min(1.0, number * step / end), _short(number * step)) for number in range(steps + 1))
    return Axis(title, ticks, lambda value: value / end)


def _logarithmic(title: str, lowest: float, highest: float) -> Axis:
    """An axis over the round numbers 1, 2 and 5 around both ends; what is 0 stands at its foot."""
    begin = max(value for value in _rounds(floor(log10(lowest)) - 1, upto=lowest) if value <= lowest)
    end = next(value for value in _rounds(floor(log10(highest)), upto=inf) if value >= highest)
    span = log10(end / begin)

    def place(value: float) -> float:
        return max(0.0, log10(max(value, begin) / begin) / span)

    factors = (1,) if span > _MANY_DECADES else (1, 2, 5)
    rounds = _rounds(floor(log10(begin)), upto=end * 1.000001, factors=factors)
    marks = [value for value in rounds if value >= begin * 0.999999]
    return Axis(title, tuple(Tick(place(value), _short(value)) for value in marks), place)


def _rounds(exponent: int, *, upto: float, factors: Sequence[int] = (1, 2, 5)) -> Iterator[float]:
    while True:
        for factor in factors:
            value = factor * 10.0**exponent
            if value > upto:
                return
            yield value
        exponent += 1


def _percentiles(largest: float) -> Axis:
    """An axis of nines, which ends a little after the last percentile."""
    end = max(float(_LEAST_NINES), _nines(largest))
    nines = [100 - 10.0 ** (2 - count) for count in range(1, floor(end + 1e-9) + 1)]
    marks = [0.0, 50.0, *nines]
    ticks = tuple(Tick(_nines(percent) / end, f"{percent:.10g} %") for percent in marks)
    return Axis("percentile", ticks, lambda percent: _nines(percent) / end)


def _nines(percent: float) -> float:
    return -log10(1 - percent / 100)


def _short(value: float) -> str:
    """Write a number without needless digits: ``6,000``, ``0.25``."""
    return f"{value:,.0f}" if value >= _THOUSAND else f"{value:.6g}"
