"""What is said before and after a run: forecast, limits, summary, and how to go on."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click
import orjson
import pytest
from msgspec.structs import replace

from sendengine.campaign.report import JobCounts, RecipientCounts, Report
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import CampaignInput, LoadedInput, Work, load_input
from sendengine.cli.carrying import command_line
from sendengine.cli.forecast import Limit, deliveries, forecast, held_s, reached
from sendengine.cli.overview import lines, overview
from sendengine.cli.summary import as_json, summary_lines
from sendengine.settings import AppSettings, BatchingSettings, Settings
from sendengine.telemetry.counters import LaneEntry

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
NOW = "2026-11-27T08:00:00+00:00"
CAMPAIGN = """\
[campaign]
name = "black-friday"
channel = "push"
message.template_id = "x"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""
UPDATES = """\
[campaign]
name = "loyalty"
kind = "update_user"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
[campaign.tags]
level = "external_id"
"""
PERSONAL = CAMPAIGN + '[campaign.custom_data]\nname = "external_id"\n'
NOTIFICATION = '{"kind":"create_notification","message":{"contents":{"en":"Hi"}},"channel":"push","to":%s}\n'
UPDATE = '{"kind":"update_user","user":{"external_id":"u1"},"tags":{"a":1}}\n'


def settings_with(*, plan: str = "paid", share: float = 1.0, deliveries_per_recipient: float = 1.0) -> Settings:
    app = AppSettings(
        app_id=APP_ID,
        api_key="k",
        plan="paid" if plan == "paid" else "free",
        share=share,
        deliveries_per_recipient=deliveries_per_recipient,
    )
    return Settings(apps={"shop": app}, batching=BatchingSettings(max_recipients_per_request=100))


def campaign(folder: Path, text: str, *, count: int) -> LoadedInput:
    (folder / "recipients.csv").write_text("external_id\n" + "".join(f"u-{n}\n" for n in range(count)))
    (folder / "campaign.toml").write_text(text)
    return load_input(folder / "campaign.toml", settings_with())


def jobs(folder: Path, *written: str) -> LoadedInput:
    (folder / "jobs.jsonl").write_text("".join(written))
    return load_input(folder / "jobs.jsonl", settings_with())


def planned(loaded: LoadedInput) -> Work:
    if isinstance(loaded, CampaignInput):
        return loaded.work(loaded.plan(settings_with(), now=datetime.now(UTC)))
    return loaded.work()


@pytest.mark.parametrize(
    ("text", "count", "is_exact", "lane", "requests", "least_s"),
    [
        (CAMPAIGN, 1050, True, "create_notification", 11, 11 / 6000),
        (CAMPAIGN, 1050, False, "create_notification", 11, 11 / 6000),  # fewer than the sample: counted all the same
        (CAMPAIGN, 21_050, False, "create_notification", 211, 211 / 6000),  # 200 requests of 100, then 1,050 more
        (PERSONAL, 1000, False, "create_notification", 1000, 1000 / 6000),
        (UPDATES, 1000, True, "update_user", 1000, 1.0),
    ],
)
def test_a_campaigns_requests_are_foretold(
    tmp_path: Path, text: str, count: int, is_exact: bool, lane: str, requests: int, least_s: float
) -> None:
    loaded = campaign(tmp_path, text, count=count)
    view = overview(loaded, planned(loaded), settings_with(), most={}, is_exact=is_exact)
    assert dict(view.forecast.requests) == {f"shop/{lane}": requests}
    assert view.least_s == pytest.approx(least_s)


def test_a_jobs_file_needs_at_most_a_request_a_job_and_more_for_long_lists(tmp_path: Path) -> None:
    many = '{"external_id":[' + ",".join(f'"u{n}"' for n in range(250)) + "]}"
    loaded = jobs(tmp_path, NOTIFICATION % '{"external_id":["u1"]}', NOTIFICATION % many, UPDATE, UPDATE)
    found = forecast(loaded, planned(loaded), settings_with(), is_exact=True)
    # 251 recipients are two full requests of a hundred more than the two jobs
    assert found.requests == {"shop/create_notification": 4, "shop/update_user": 2}
    assert not found.is_exact
    assert reached(loaded, planned(loaded)) == 253


def test_how_many_a_segment_reaches_is_not_known(tmp_path: Path) -> None:
    loaded = jobs(tmp_path, NOTIFICATION % '{"segments":["All"]}', NOTIFICATION % '{"external_id":["u1"]}')
    assert reached(loaded, planned(loaded)) is None
    assert deliveries(loaded, planned(loaded), settings_with()) == {"shop": None}
    shown = overview(loaded, planned(loaded), settings_with(), most={"shop": 700}, is_exact=False)
    assert any("how many these are is known only to OneSignal" in line for line in lines(shown))


def test_deliveries_count_every_device_and_no_user_updates(tmp_path: Path) -> None:
    loaded = jobs(tmp_path, NOTIFICATION % '{"external_id":["u1","u2","u3"]}', UPDATE)
    settings = settings_with(deliveries_per_recipient=1.5)
    assert deliveries(loaded, planned(loaded), settings) == {"shop": 5}  # 4.5, rounded up


@pytest.mark.parametrize(
    ("count", "most", "windows"),
    [
        (0, 700, 0),
        (700, 700, 0),
        (701, 700, 1),
        (1400, 700, 1),
        (1401, 700, 2),
        (None, 700, 0),
        (5, None, 0),
        (5, 0, 0),
    ],
)
def test_more_than_the_application_limit_takes_further_quarters_of_an_hour(
    count: int | None, most: int | None, windows: int
) -> None:
    limit = Limit("shop", count, most)
    assert limit.windows == windows
    assert held_s([limit, Limit("other", 0, 1)]) == windows * 900
    assert held_s([]) == 0


def test_the_overview_says_what_is_held_and_for_how_long(tmp_path: Path) -> None:
    loaded = campaign(tmp_path, CAMPAIGN, count=1500)
    shown = overview(loaded, planned(loaded), settings_with(), most={"shop": 700}, is_exact=True)
    assert (
        "  application limit of shop: 1,500 of 700 deliveries in 15 minutes (214.3%); sending is held in between"
        in (lines(shown))
    )
    assert "  expected duration: 30 min 0 s or a little more" in lines(shown)


def test_a_share_and_a_plan_make_a_lane_slower(tmp_path: Path) -> None:
    loaded = campaign(tmp_path, PERSONAL, count=300)
    settings = settings_with(plan="free", share=0.5)
    shown = overview(loaded, planned(loaded), settings, most={}, is_exact=True)
    assert "  shop/create_notification: 300 requests, 4.0 s at its ceiling of 75/s" in lines(shown)


# Afterwards

LANE: LaneEntry = {
    "ceiling": 6000.0,
    "requests": 12_000,
    "replies": {"200": 11_990, "429": 10},
    "epochs": 1,
    "peak_1s": 5997,
    "mean_rate": 5903.4,
    "held_s": 1.25,
    "latency_ms": {"p50": 101.2, "p99": 140.9, "max": 300.0},
    "bound_by": {
        "rate": 0.903, "connections": 0.004, "input": 0.0, "hold": 0.093, "user": 0.0, "guard": 0.0, "journal": 0.0
    },
}  # fmt: skip


LANE_LINE = (
    "  shop/create_notification: 12,000 requests, 5,903/s of 6,000 on average, 5,997 in the busiest second, "
    "10 429s in 1 epoch, p50 101 ms, p99 141 ms"
)


def report_with(
    *, accepted: int, rejected: int = 0, invalid: int = 0, unsubscribed: int = 0, exit_code: int = 0
) -> Report:
    return Report(
        run="r",
        name="black-friday",
        started_at=NOW,
        finished_at=NOW,
        durability="memory",
        exit_code=exit_code,
        jobs=JobCounts(accepted=accepted, rejected=rejected, invalid=invalid),
        recipients=RecipientCounts(targeted=accepted + rejected, unsubscribed=unsubscribed),
        lanes={"shop/create_notification": LANE},
    )


def said(report: Report, *, why: str = "") -> Sequence[str]:
    return summary_lines(report, folder=Path("runs/r"), why=why)


def test_the_summary_says_what_came_of_it_what_bound_it_and_where_to_read_more() -> None:
    assert said(
        report_with(accepted=98, rejected=2, invalid=3, unsubscribed=7, exit_code=75), why="stopped, as asked"
    ) == [
        "black-friday: 98 of 100 begun accepted; stopped, as asked",
        "  2 rejected, 3 invalid",
        "  7 named as unsubscribed",
        LANE_LINE,
        "    held for 1.2 s",
        "    bound by rate 90%, hold 9%",
        "  report: runs/r/report.json",
        "  what was not accepted, and why: runs/r/failures.jsonl",
    ]


def test_the_summary_points_to_the_failures_only_where_there_are_any() -> None:
    kept = replace(report_with(accepted=98, exit_code=75), durability="durable")
    kept.jobs.abandoned = 2
    assert said(kept)[-1] == "  report: runs/r/report.json"
    assert said(replace(kept, durability="memory"))[-1].endswith("runs/r/failures.jsonl")


def failure(reason: str, *, outcome: str = "rejected") -> str:
    return orjson.dumps({"job": {}, "outcome": outcome, "reason": reason, "maybe_sent": False, "key": None}).decode()


@pytest.mark.parametrize(
    ("failures", "last"),
    [
        ([failure("a"), failure("b"), failure("a")], "    most often, 2 of the first 3: a"),
        (
            [failure("the run was stopped first", outcome="abandoned"), failure("b")],
            "    most often, 1 of the first 1: b",
        ),
        (["damaged", failure("b"), failure("cut off")[:20]], "    most often, 1 of the first 1: b"),
        ([failure("word " * 100)], f"    most often, 1 of the first 1: {'word ' * 59}…"),
        ([failure("the run was stopped first", outcome="abandoned")], None),
        (["damaged"], None),
    ],
)
def test_the_summary_says_what_most_of_the_failures_met(tmp_path: Path, failures: list[str], last: str | None) -> None:
    (tmp_path / "failures.jsonl").write_text("\n".join(failures))
    written = summary_lines(report_with(accepted=8, rejected=2), folder=tmp_path)
    assert written[-1] == (last or f"  what was not accepted, and why: {tmp_path / 'failures.jsonl'}")


def test_the_summary_of_a_good_run_is_short() -> None:
    written = said(report_with(accepted=100))
    assert written[0] == "black-friday: 100 of 100 accepted"
    assert written[-1] == "  report: runs/r/report.json"
    assert len(written) == 5


def test_the_summary_for_programs_is_the_report_with_its_place() -> None:
    shown = as_json(report_with(accepted=100), folder=Path("runs/r"), why="")
    assert (shown["directory"], shown["schema"], shown["why"]) == ("runs/r", 1, "")


@pytest.mark.parametrize(
    ("command", "config", "line"),
    [
        ("resume", "sendengine.toml", "sendengine resume 2026-a --runs-dir elsewhere"),
        ("resume", "my shop.toml", "sendengine resume 2026-a --runs-dir elsewhere --config 'my shop.toml'"),
        ("report", "my shop.toml", "sendengine report 2026-a --runs-dir elsewhere"),
    ],
)
def test_a_line_to_type_names_the_settings_where_they_are_not_found_without(
    command: str, config: str, line: str
) -> None:
    with click.Context(click.Command("send")) as context:
        context.params["config"] = Path(config)
        assert command_line(command, RunDir(Path("elsewhere/2026-a"))) == line
