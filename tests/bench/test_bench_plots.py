"""Plots: what stands where, in the text of the drawing."""

import re
from itertools import pairwise
from math import inf, nan
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.bench.plots import Line, latency_plot, percentile_points, rate_plot
from sendengine.telemetry.histogram import Histogram

SVG = "{http://www.w3.org/2000/svg}"
COMMAND = "sendengine bench --rate 7000 --seconds 60"

numbers = st.floats(0, 1e9)
rates = st.lists(st.tuples(st.floats(0, 1e6), numbers), max_size=20)
latencies = st.lists(st.tuples(st.floats(0, 99.9999), numbers), max_size=20)


def parsed(svg: str) -> ET.Element:
    return ET.fromstring(svg.encode())  # noqa: S314 - the drawing is our own


def texts(svg: str) -> list[str]:
    return [found.text or "" for found in parsed(svg).iter(f"{SVG}text")]


def paths(svg: str, *, kind: str) -> list[list[tuple[float, float]]]:
    """Each path of a class as its corners."""
    found = [path for path in parsed(svg).iter(f"{SVG}path") if path.get("class") == kind]
    return [[(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))] for path in found]


def ticks(svg: str) -> dict[str, tuple[float, float]]:
    """Where each mark's text stands."""
    return {
        found.text or "": (float(found.get("x", "")), float(found.get("y", "")))
        for found in parsed(svg).iter(f"{SVG}text")
        if found.get("class") == "tick"
    }


def test_a_rate_stands_where_its_marks_say() -> None:
    svg = rate_plot([Line("create", [(0, 0), (4, 3000), (10, 6000)], bound=6000.0)], title="A", command=COMMAND)
    marks = ticks(svg)
    _swatch, curve = paths(svg, kind="c0")
    assert curve[0][0] == 76
    assert curve[1][0] == pytest.approx(marks["4"][0])
    assert curve[2][0] == pytest.approx(marks["10"][0])
    assert curve[1][1] == pytest.approx(marks["3,000"][1] - 4)  # a mark's text stands 4 below its line
    assert curve[2][1] == pytest.approx(marks["6,000"][1] - 4)


def test_a_ceiling_is_a_thin_line_over_the_whole_time() -> None:
    svg = rate_plot([Line("create", [(0, 1), (8, 1)], bound=6000.0)], title="A", command=COMMAND)
    _swatch, ceiling = paths(svg, kind="c0 thin")
    marks = ticks(svg)
    assert ceiling == [(76, marks["6,000"][1] - 4), (marks["8"][0], marks["6,000"][1] - 4)]
    assert "its ceiling, 6,000" in texts(svg)


def test_a_ceiling_may_change_with_time() -> None:
    svg = rate_plot([Line("ours", [(0, 1), (8, 1)], bound=[(0, 2), (4, 2), (4, 1)])], title="A", command=COMMAND)
    _swatch, ceiling = paths(svg, kind="c0 thin")
    assert len(ceiling) == 3
    assert "its ceiling" in texts(svg)


def test_it_says_title_units_names_and_the_command_that_made_it() -> None:
    svg = rate_plot([Line("create", [(0, 1)]), Line("update", [(0, 2)])], title="At 100 ms", command=COMMAND)
    assert {"At 100 ms", "create", "update", "requests/s", "seconds since the start", COMMAND} <= {*texts(svg)}
    svg = latency_plot([Line("create", [(0, 1)])], title="A", subtitle="on one core", command=COMMAND)
    assert {"on one core", "ms", "percentile", COMMAND} <= {*texts(svg)}


def test_a_long_command_is_broken_between_words() -> None:
    command = " ".join(["--option-of-it"] * 30)
    assert " ".join(text for text in texts(rate_plot([], title="A", command=command)) if "--" in text) == command


def test_a_long_title_is_broken_too() -> None:
    title = " ".join(["of-many-words"] * 20)
    found = texts(rate_plot([], title=title, command=COMMAND))
    assert " ".join(text for text in found if text.startswith("of-many")) == title
    assert max(map(len, found)) < 100


def test_the_axis_of_time_ends_with_the_last_second() -> None:
    svg = rate_plot([Line("create", [(0, 1), (12.01, 1)])], title="A", command=COMMAND)
    _swatch, curve = paths(svg, kind="c0")
    assert curve[-1][0] == 926
    assert "14" not in texts(svg)


def test_it_is_readable_on_light_and_on_dark_ground() -> None:
    svg = rate_plot([Line("create", [(0, 1)])], title="A", command=COMMAND)
    assert ".ground{fill:#fff}" in svg
    assert "@media (prefers-color-scheme:dark)" in svg


def test_each_nine_takes_the_same_room() -> None:
    points = [(0.0, 1.0), (90.0, 2.0), (99.0, 3.0), (99.9, 4.0)]
    svg = latency_plot([Line("create", points)], title="A", command=COMMAND)
    marks = ticks(svg)
    assert [*marks][-5:] == ["0 %", "50 %", "90 %", "99 %", "99.9 %"]
    _swatch, curve = paths(svg, kind="c0")
    gaps = [after[0] - before[0] for before, after in pairwise(curve)]
    assert gaps == pytest.approx([gaps[0]] * 3, abs=0.2)


def test_latencies_far_apart_stand_on_a_logarithmic_axis() -> None:
    svg = latency_plot([Line("a", [(0, 1.0), (90, 10.0), (99, 100.0)])], title="A", command=COMMAND)
    assert "ms, logarithmic" in texts(svg)
    _swatch, curve = paths(svg, kind="c0")
    assert curve[0][1] - curve[1][1] == pytest.approx(curve[1][1] - curve[2][1], abs=0.2)
    assert "ms" in texts(latency_plot([Line("a", [(0, 1.0), (99, 29.0)])], title="A", command=COMMAND))


@pytest.mark.parametrize("value", [nan, inf, -1.0])
def test_what_cannot_be_drawn_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match="create: a plot takes finite numbers from 0 up"):
        rate_plot([Line("create", [(0, value)])], title="A", command=COMMAND)
    with pytest.raises(ValueError, match="create: a plot takes"):
        latency_plot([Line("create", [(0, value)])], title="A", command=COMMAND)


def test_the_maximum_has_no_place_among_percentiles() -> None:
    with pytest.raises(ValueError, match="before 100 %"):
        latency_plot([Line("create", [(100, 1)])], title="A", command=COMMAND)


@given(st.text(), st.text(), st.text())
def test_any_text_is_fit_for_xml(title: str, name: str, command: str) -> None:
    parsed(rate_plot([Line(name, [(0, 1)])], title=title, subtitle=name, command=command))


@given(st.lists(st.builds(Line, st.just("a"), rates, st.none() | numbers | rates), max_size=8))
def test_any_rates_stay_inside_the_frame(lines: list[Line]) -> None:
    check_frame(rate_plot(lines, title="A", command=COMMAND))


@given(st.lists(st.builds(Line, st.just("a"), latencies, st.none() | numbers | latencies), max_size=8))
def test_any_latencies_stay_inside_the_frame(lines: list[Line]) -> None:
    check_frame(latency_plot(lines, title="A", command=COMMAND))


def check_frame(svg: str) -> None:
    height = float(parsed(svg).get("height", ""))
    for path in parsed(svg).iter(f"{SVG}path"):
        for x, y in re.findall(r"([-\d.]+) ([-\d.]+)", path.get("d", "")):
            assert 76 <= float(x) <= 936
            assert 0 <= float(y) <= height


def test_points_of_a_histogram_rise_to_the_last_of_all() -> None:
    histogram = Histogram()
    for number in range(1, 1001):
        histogram.record(number / 1e3)
    points = percentile_points(histogram)
    assert points[0] == pytest.approx((0, 1), rel=0.01)
    assert points[-1] == pytest.approx((99.9, 999), rel=0.01)
    assert {round(x, 6): y for x, y in points}[90] == pytest.approx(900, rel=0.01)
    assert points == sorted(points)


def test_no_times_make_no_points() -> None:
    assert percentile_points(Histogram()) == []


def test_one_time_makes_a_point() -> None:
    histogram = Histogram()
    histogram.record(0.02)
    assert percentile_points(histogram)[0] == pytest.approx((0, 20), rel=0.01)
