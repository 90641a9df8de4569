"""What is shown while a run goes on."""

import asyncio
import io
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sendengine.campaign.report import JobCounts
from sendengine.campaign.run import Progress
from sendengine.cli import display
from sendengine.cli.output import note
from sendengine.cli.progress import Glance, Speed, Teller
from sendengine.cli.session import named
from sendengine.telemetry.snapshots import LaneStats

SEEN_AT_S = 1_800_000_000.0
LANE = LaneStats(
    depth=1200, oldest_age_s=0.5, rate=6000.0, ceiling=6000.0, hold=None, hold_until_s=None, in_flight=610,
    connections=650, requests=0, replies={}, retries=3, throttled=2, epochs=1, most_in_one_second=5940,
    latency_p50_ms=101.4, latency_p99_ms=140.2, latency_max_ms=400.0, share_of_application_limit=None,
)  # fmt: skip


def glance(done: int, requests: int = 0, *, total: int | None = 100_000, held_s: float | None = None) -> Glance:
    lane = replace(LANE, requests=requests)
    if held_s is not None:
        lane = replace(lane, hold="429", hold_until_s=SEEN_AT_S + held_s)
    return Glance("black-friday", "recipients", done, total, {"shop/create_notification": lane}, SEEN_AT_S)


@pytest.mark.parametrize(
    ("problem", "rate", "text"),
    [
        (None, None, "spring"),
        (None, 50.0, "spring: at most 50 requests/s in each lane, as ordered"),
        ("the disk is full", None, "spring: the disk is full"),
        ("the disk is full", 0.5, "spring: the disk is full; at most 0.5 requests/s in each lane, as ordered"),
    ],
)
def test_what_is_out_of_the_ordinary_stands_beside_the_name(problem: str | None, rate: float | None, text: str) -> None:
    assert named("spring", Progress(0, 1, 0, JobCounts(), problem, rate)) == text


def test_speed_is_the_growth_over_the_span_that_ends_now() -> None:
    speed = Speed(3.0)
    for now_s, count, per_s in [
        (0.0, 0, 0),  # one mark says nothing
        (1.0, 100, 100),
        (2.0, 300, 150),
        (3.0, 600, 200),
        (4.0, 1000, 300),  # since 1.0
        (4.5, 1000, 900 / 3.5),  # the mark at 1.0 still reaches over the start of the span
        (10.0, 1000, 0),
        (10.0, 1000, 0),  # no time has passed
    ]:
        assert speed.note(count, now_s=now_s) == pytest.approx(per_s), f"at {now_s} s"


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 1000)), max_size=50))
def test_a_speed_is_never_negative_and_never_above_the_fastest_step(steps: list[tuple[float, int]]) -> None:
    speed, now_s, count, fastest = Speed(3.0), 0.0, 0, 0.0
    speed.note(0, now_s=0.0)
    for step_s, more in steps:
        fastest = max(fastest, more / step_s)
        now_s, count = now_s + step_s, count + more
        assert -1e-9 <= speed.note(count, now_s=now_s) <= fastest * 1.001


def test_the_screen_shows_done_rate_ceiling_and_what_is_left() -> None:
    teller = Teller(now_s=100.0)
    teller.screen(glance(0), now_s=100.0)
    assert teller.screen(glance(12_000, 12_100), now_s=102.0).split("\n") == [
        "black-friday  12,000 of 100,000 recipients (12 %)",
        "[" + "█" * 5 + "░" * 43 + "]",
        " now/s ceiling in flight waiting p50 ms p99 ms  429s retries",
        "shop/create_notification",
        " 6,050   6,000       610   1,200    101    140     2       3",
        "2.0 s gone, about 15 s left",
    ]


def test_the_screen_keeps_its_height_when_a_lane_is_held() -> None:
    teller = Teller(now_s=0.0)
    free = teller.screen(glance(0), now_s=0.0).split("\n")
    held = teller.screen(glance(0, held_s=12), now_s=1.0).split("\n")
    assert held[-3] == "shop/create_notification  held for 12 s: 429"
    assert len(free) == len(held)


def test_a_hold_that_somebody_has_to_end_says_so_without_an_instant() -> None:
    held = replace(LANE, hold="the key was refused", hold_until_s=None)
    screen = Teller(now_s=0.0).screen(Glance("spring", "jobs", 0, 1, {"shop/update_user": held}, SEEN_AT_S), now_s=0.0)
    assert "\nshop/update_user  held: the key was refused\n" in screen


def test_a_line_is_plain_and_complete() -> None:
    teller = Teller(now_s=0.0)
    teller.line(glance(0), now_s=0.0)
    assert teller.line(glance(50_000, 58_000, held_s=5), now_s=10.0) == (
        "black-friday: 50,000 of 100,000 recipients (50 %); shop/create_notification 5,800/s of 6,000, 610 in flight, "
        "p50 101 ms, p99 140 ms, 2 429s, 3 retries, held for 5.0 s: 429, about 10 s left"
    )


def test_an_unknown_total_is_left_out() -> None:
    teller = Teller(now_s=0.0)
    teller.line(glance(0, total=None), now_s=0.0)
    line = teller.line(glance(500, total=None), now_s=1.0)
    assert line.startswith("black-friday: 500 recipients; ")
    assert "left" not in line


def test_an_empty_run_has_no_percentage_and_no_bar() -> None:
    screen = Teller(now_s=0.0).screen(glance(0, total=0), now_s=0.0)
    assert "0 of 0 recipients\n" in screen
    assert "█" not in screen


# When it is shown


@dataclass
class Sleeper:
    """Stands in for asyncio.sleep: wakes as often as it is told to, then never again."""

    times: int
    asked_s: list[float]
    is_done: asyncio.Event

    async def __call__(self, delay_s: float) -> None:
        self.asked_s.append(delay_s)
        if len(self.asked_s) > self.times:
            self.is_done.set()
            await asyncio.Event().wait()


async def test_elsewhere_than_on_a_terminal_a_line_comes_every_ten_seconds_and_at_the_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sleeper = Sleeper(2, [], asyncio.Event())
    monkeypatch.setattr("sendengine.cli.display.asyncio.sleep", sleeper)
    done = iter(range(0, 100_000, 1000))
    async with display.shown(lambda: glance(next(done))):
        await sleeper.is_done.wait()
    captured = capsys.readouterr()
    assert sleeper.asked_s == [10.0, 10.0, 10.0]
    assert [line.split(" of ")[0] for line in captured.err.splitlines()] == [
        "black-friday: 1,000",
        "black-friday: 2,000",
        "black-friday: 3,000",
    ]
    assert captured.out == ""


async def test_on_a_terminal_it_is_drawn_live(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper = Sleeper(3, [], asyncio.Event())
    monkeypatch.setattr("sendengine.cli.display.asyncio.sleep", sleeper)
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    done = iter(range(0, 100_000, 1000))
    monkeypatch.setattr(display, "is_drawable", lambda: True)
    async with display.shown(lambda: glance(next(done))):
        await sleeper.is_done.wait()
    assert "1,000 of 100,000 recipients" in drawn.getvalue()
    assert "4,000 of 100,000 recipients" in drawn.getvalue()  # drawn once more at the end


@pytest.mark.parametrize(("term", "is_drawable"), [("xterm", True), ("dumb", False), ("unknown", False)])
def test_a_terminal_that_cannot_be_drawn_on_gets_lines(
    monkeypatch: pytest.MonkeyPatch, term: str, is_drawable: bool
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", term)
    assert display.is_drawable() == is_drawable
    monkeypatch.setattr("sys.stderr", None)  # it was closed before we began
    assert not display.is_drawable()


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
async def test_a_terminal_shows_all_of_it_however_narrow_it_is(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    sleeper = Sleeper(1, [], asyncio.Event())
    monkeypatch.setattr("sendengine.cli.display.asyncio.sleep", sleeper)
    drawn = io.StringIO()
    monkeypatch.setattr("sys.stderr", drawn)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(display, "is_drawable", lambda: True)
    async with display.shown(lambda: glance(1000, held_s=5)):
        await sleeper.is_done.wait()
    shown = " ".join(drawn.getvalue().split())
    for part in ("1,000 of 100,000", "s gone", "held for 5.0 s: 429", "610 1,200 101 140 2 3", "p99 ms 429s retries"):
        assert part in shown


async def test_what_is_said_meanwhile_stands_above_the_progress_and_is_not_wiped_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sleeper = Sleeper(1, [], asyncio.Event())
    monkeypatch.setattr("sendengine.cli.display.asyncio.sleep", sleeper)
    drawn = io.BytesIO()
    monkeypatch.setattr("sys.stderr", io.TextIOWrapper(drawn, encoding="utf-8", write_through=True))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(display, "is_drawable", lambda: True)
    async with display.shown(lambda: glance(1000)):
        await sleeper.is_done.wait()
        before = len(drawn.getvalue())
        note("Stopping: one moment.")
        said = drawn.getvalue()[before:].decode()
    wiped, _, redrawn = said.partition("Stopping: one moment.")
    assert wiped.startswith("\r\x1b[2K")  # the progress goes first
    assert "1,000 of 100,000 recipients" in redrawn


async def test_an_error_of_the_run_passes_through_the_display() -> None:
    async def fail() -> None:
        raise RuntimeError("of the run")

    with pytest.raises(RuntimeError, match="of the run"):
        async with display.shown(lambda: glance(0)):
            await fail()


def test_what_is_done_has_nothing_left() -> None:
    teller = Teller(now_s=0.0)
    teller.line(glance(0), now_s=0.0)
    assert "left" not in teller.line(glance(100_000), now_s=10.0)
