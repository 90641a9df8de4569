"""The demo: a campaign and mixed jobs through the engine, and the reports beside the mock server's ledger."""

from pathlib import Path

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from sendengine.campaign.report import JobCounts, Report
from sendengine.cli.commands import cli
from sendengine.cli.democheck import compared
from sendengine.mockserver import MockServer, Summary
from sendengine.mockserver.messages import Doubled
from sendengine.telemetry.counters import LaneCounters


async def empty_ledger() -> Summary:
    async with MockServer() as server:
        return server.summary()


def report_with(*, requests: int, accepted: int) -> Report:
    counters = LaneCounters()
    for _ in range(requests):
        counters.sent(now_s=0.0)
        counters.replied(200, latency_s=0.1)
    return Report(
        run="r",
        name="demo",
        started_at="",
        finished_at="",
        durability="memory",
        exit_code=0,
        jobs=JobCounts(accepted=accepted),
        lanes={"demo/create_notification": counters.entry(ceiling=6000)} if requests else {},
    )


async def test_a_request_that_the_server_did_not_see_is_a_difference() -> None:
    ledger = await empty_ledger()
    assert all(row.is_equal for row in compared([report_with(requests=0, accepted=0)], ledger))
    differing = [row for row in compared([report_with(requests=2, accepted=2)], ledger) if not row.is_equal]
    assert [(row.what, row.reports, row.ledger) for row in differing] == [
        ("create_notification: requests", 2, 0),
        ("create_notification: replies 200", 2, 0),
        ("recipients reached, and users updated", 2, 0),
    ]


async def test_an_effect_that_came_twice_does_not_count_as_another() -> None:
    ledger = msgspec.structs.replace(await empty_ledger(), recipients=3, doubled=Doubled(effects=1))
    assert all(row.is_equal for row in compared([report_with(requests=0, accepted=2)], ledger))


def test_the_demo_ends_0_with_equal_totals_and_leaves_its_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["demo", "--recipients", "300", "--jobs", "100", "--json"], prog_name="sendengine")
    assert result.exit_code == 0, result.output
    shown = orjson.loads(result.stdout)
    assert shown["equal"] is True
    assert {row["what"]: (row["reports"], row["ledger"]) for row in shown["comparison"]} == {
        "create_notification: requests": (350, 350),
        "create_notification: replies 200": (350, 350),
        "create_notification: replies 429": (0, 0),
        "update_user: requests": (50, 50),
        "update_user: replies 202": (50, 50),
        "update_user: replies 429": (0, 0),
        "recipients reached, and users updated": (400, 400),
    }
    assert [folder.name.split("-", 1)[1][:8] for folder in sorted(Path("runs").iterdir())] == ["demo-cam", "demo-job"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]
