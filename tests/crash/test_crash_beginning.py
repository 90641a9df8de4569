"""Killed while a run begins: before and after its manifest, its entry as begun, and its journal."""

import asyncio
from pathlib import Path

import pytest

from tests.crash.deaths import live_until
from tests.crash.inputs import PACK, Line, write_campaign, write_jobs, write_settings
from tests.crash.judge import assert_nobody, deliveries
from tests.crash.processes import Order, command, run, said
from tests.crash.runs import runs_in, sent_and_resumed
from tests.crash.sabotage import Point
from tests.crash.scene import Scene, scene_in
from tests.support.mocked import assert_clean

ROWS = 6 * PACK
CAMPAIGN = "sendengine.campaign"
STEPS = [
    Point(f"{CAMPAIGN}.rundir:RunDir.make", "after"),
    Point(f"{CAMPAIGN}.manifest:save", "before"),
    Point(f"{CAMPAIGN}.manifest:save", "after"),
    Point(f"{CAMPAIGN}.begun:make_new", "before"),
    Point(f"{CAMPAIGN}.begun:make_new", "after"),
    Point("sendengine.journal.opening:open_whole", "before"),
    Point("sendengine.journal.opening:open_whole", "after"),
    Point("sendengine.journal.database:Database.write", "before"),
    Point("sendengine.journal.database:Database.write", "after"),
]

BEFORE_IT_IS_BEGUN = STEPS[2:4]


def write_inputs(folder: Path, base_url: str) -> None:
    write_settings(folder, base_url)
    write_campaign(folder, ROWS)
    job: Line = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push"}
    write_jobs(folder, [{**job, "to": {"external_id": [f"r{row}"]}} for row in range(ROWS)])


def assert_everybody_once(scene: Scene) -> None:
    assert_clean(scene.server.summary())
    reached = deliveries(scene.server)
    assert_nobody((item for item, count in reached.items() if count > 1), "reached twice")
    assert_nobody({f"r{row}" for row in range(ROWS)} - reached.keys(), "lost")


@pytest.mark.parametrize("source", ["campaign.toml", "jobs.jsonl"])
async def test_a_run_killed_while_it_begins_is_resumed_or_sent_again(tmp_path: Path, source: str) -> None:
    async def begun_and_killed(point: Point, folder: Path) -> None:
        async with scene_in(folder) as scene:
            write_inputs(folder, scene.server.base_url)
            assert await sent_and_resumed(scene, source, [point]) == 0, f"{point}: {said(folder)}"
            assert scene.kills == 1, point
            assert_everybody_once(scene)

    await asyncio.gather(*(begun_and_killed(point, tmp_path / str(n)) for n, point in enumerate(STEPS)))


@pytest.mark.parametrize("source", ["campaign.toml", "jobs.jsonl"])
async def test_who_sends_anew_after_such_a_death_and_then_resumes_what_died_reaches_nobody_twice(
    tmp_path: Path, source: str
) -> None:
    async def sent_anew(point: Point, folder: Path) -> None:
        async with scene_in(folder) as scene:
            write_inputs(folder, scene.server.base_url)
            assert await live_until(point, scene, Order(folder, command, ("send", source, "--yes"))) == -9
            codes = [await run(Order(folder, command, ("send", source, "--yes")))]
            codes += [await run(Order(folder, command, ("resume", found.name))) for found in runs_in(folder)]
            assert 0 in codes, f"{point}: {said(folder)}"
            try:
                assert_everybody_once(scene)
            except AssertionError as error:
                raise AssertionError(f"{error}; {point}; {codes}") from error

    await asyncio.gather(*(sent_anew(point, tmp_path / str(n)) for n, point in enumerate(BEFORE_IT_IS_BEGUN)))
