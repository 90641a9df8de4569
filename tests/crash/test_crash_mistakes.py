"""Sent twice by mistake, resumed under other settings, retried after an outage: everybody once, under the old keys."""

import asyncio
import shutil
from pathlib import Path

import pytest

from tests.crash.deaths import Strike, live_until
from tests.crash.inputs import PACK, Line, poison, write_campaign, write_jobs, write_settings
from tests.crash.judge import assert_nobody, deliveries
from tests.crash.mischief import impatient
from tests.crash.processes import Order, Victim, command, run, said
from tests.crash.runs import judge_report, report_in, run_in, runs_in, sent_and_resumed
from tests.crash.scene import Bell, Scene, scene_in
from tests.support.mocked import assert_clean

ROWS = 60 * PACK
SEND = ("send", "campaign.toml", "--yes")


def assert_everybody_once(scene: Scene, *, rows: int = ROWS) -> None:
    """All packs had their old keys: no key came with another content, and no content under two keys."""
    assert_clean(scene.server.summary())
    reached = deliveries(scene.server)
    assert_nobody((item for item, count in reached.items() if count > 1), "reached twice")
    assert_nobody({f"r{row}" for row in range(rows)} - reached.keys(), "lost")
    assert len(reached) == rows


async def test_a_campaign_sent_twice_by_mistake_is_refused_and_says_how_to_go_on(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        assert await live_until(Strike(10), scene, Order(tmp_path, command, SEND)) == -9
        before = scene.requests
        assert await run(Order(tmp_path, command, SEND)) == 2
        assert scene.requests == before
        assert "sendengine resume" in said(tmp_path)
        assert await run(Order(tmp_path, command, ("resume", "latest"))) == 0, said(tmp_path)
        assert await run(Order(tmp_path, command, SEND)) == 2
        assert_everybody_once(scene)


async def test_a_run_that_is_going_on_is_not_resumed_beside_itself(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url, rate=30)
        write_campaign(tmp_path, ROWS)
        going = Bell()
        scene.strike(going, after=5, is_lost=False)
        async with Victim(Order(tmp_path, command, SEND)) as sending:
            await going.until_rung()
            for again in (("resume", "latest"), SEND):
                assert await run(Order(tmp_path, command, again)) == 2, said(tmp_path)
            assert await sending.end() == 0, said(tmp_path)
        assert_everybody_once(scene)
        assert scene.server.summary().replays == 0


async def test_a_campaign_sent_from_two_state_directories_reaches_nobody_twice(tmp_path: Path) -> None:
    """One after the other, the first killed in the middle and resumed at last."""
    async with scene_in(tmp_path / "one") as scene:
        write_settings(tmp_path / "one", scene.server.base_url)
        write_campaign(tmp_path / "one", ROWS)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        assert await live_until(Strike(25), scene, Order(tmp_path / "one", command, SEND)) == -9
        assert await run(Order(tmp_path / "two", command, SEND)) == 0, said(tmp_path / "two")
        assert_everybody_once(scene)
        assert scene.server.summary().replays > 0
        assert await run(Order(tmp_path / "one", command, ("resume", "latest"))) == 0, said(tmp_path / "one")
        assert_everybody_once(scene)
        for folder in ("one", "two"):
            assert report_in(run_in(tmp_path / folder))["jobs"]["accepted"] == ROWS


@pytest.mark.parametrize("bad", [1, pytest.param(3, marks=pytest.mark.slow)])
async def test_whoever_is_refused_beside_others_makes_nobody_be_reached_twice_from_two_state_directories(
    tmp_path: Path, bad: int
) -> None:
    """The first pack is refused, or later ones are: both runs take the same packs apart in the same way."""
    async with scene_in(tmp_path, poisoned=poison(bad)) as scene:
        for name in ("one", "other"):
            folder = tmp_path / name
            folder.mkdir()
            write_settings(folder, scene.server.base_url)
            write_campaign(folder, ROWS, bad=bad)
            assert await run(Order(folder, command, SEND)) == 3, said(folder)
        assert set(deliveries(scene.server).values()) == {1}
        assert len(deliveries(scene.server)) == ROWS - bad


async def test_a_campaign_sent_from_two_state_directories_at_once_reaches_nobody_twice(tmp_path: Path) -> None:
    async with scene_in(tmp_path / "one") as scene:
        write_settings(tmp_path / "one", scene.server.base_url)
        write_campaign(tmp_path / "one", ROWS)
        shutil.copytree(tmp_path / "one", tmp_path / "two")
        codes = await asyncio.gather(*(run(Order(tmp_path / name, command, SEND)) for name in ("one", "two")))
        assert codes == [0, 0], said(tmp_path / "one") + said(tmp_path / "two")
        assert_everybody_once(scene)
        assert scene.server.summary().replays >= ROWS // PACK


async def test_a_campaign_resumed_under_other_settings_keeps_its_packs_and_keys(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        with (tmp_path / "recipients.csv").open("a") as file:
            file.write("r3\nnull\nr5\n")  # two duplicates, and one that cannot be sent
        arguments = (*SEND, "--skip-invalid")
        assert await live_until(Strike(20), scene, Order(tmp_path, command, arguments)) == -9
        write_settings(tmp_path, scene.server.base_url, pack=7)
        definition = (tmp_path / "campaign.toml").read_text()
        (tmp_path / "campaign.toml").write_text(
            definition.replace('channel = "push"', 'channel = "push"\ndedupe = false').replace("24 hours", "48 hours")
        )
        assert await live_until(Strike(8), scene, Order(tmp_path, command, ("resume", "latest"))) == -9
        write_settings(tmp_path, scene.server.base_url, pack=13)
        assert await run(Order(tmp_path, command, ("resume", "latest"))) == 0, said(tmp_path)
        assert_everybody_once(scene)
        assert {message.count for message in scene.server.ledger.messages} == {PACK}
        counts = judge_report(run_in(tmp_path), scene.server)
        assert (counts["accepted"], counts["duplicates"], counts["invalid"]) == (ROWS, 2, 1)


async def test_a_campaign_whose_file_has_changed_is_not_resumed(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        assert await live_until(Strike(10), scene, Order(tmp_path, command, SEND)) == -9
        before = scene.requests
        text = (tmp_path / "recipients.csv").read_text()
        (tmp_path / "recipients.csv").write_text(text.replace("r599", "r999"))
        assert await run(Order(tmp_path, command, ("resume", "latest"))) == 2
        assert scene.requests == before
        assert "recipients.csv" in said(tmp_path)
        (tmp_path / "recipients.csv").write_text(text)
        assert await run(Order(tmp_path, command, ("resume", "latest"))) == 0, said(tmp_path)
        assert_everybody_once(scene)


@pytest.mark.slow
async def test_an_outage_that_lasts_too_long_stops_a_run_and_resume_reaches_everybody_once(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url, max_outage_s=1)
        write_campaign(tmp_path, ROWS)
        scene.server.configure(faults=[{"kind": "503_text", "skip": 20, "effect": True}])
        assert await run(Order(tmp_path, command, SEND)) == 75, said(tmp_path)
        scene.server.configure(faults=[])
        assert await run(Order(tmp_path, command, ("resume", "latest"))) == 0, said(tmp_path)
        assert_everybody_once(scene)
        judge_report(run_in(tmp_path), scene.server)


@pytest.mark.slow
async def test_after_an_outage_in_the_middle_of_a_campaign_retry_reaches_everybody_once(tmp_path: Path) -> None:
    """What was given up was carried out, or was not; who retries cannot know, and is killed on the way too."""
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        trouble = [("503_text", True, 0.25), ("500", False, 0.25), ("reset_after", True, 0.1)]
        scene.server.configure(
            faults=[
                {"kind": kind, "effect": effect, "probability": chance, "skip": 5} for kind, effect, chance in trouble
            ]
        )
        arguments = (*SEND, "--max-error-rate", "100%")
        code = await run(Order(tmp_path, command, arguments, mischief=(impatient,)))
        assert code == 3, said(tmp_path)
        counts = report_in(run_in(tmp_path))["jobs"]
        assert counts["gave_up"] > 3 * PACK, "nothing was given up, so that there is nothing to retry"
        scene.server.configure(faults=[])
        first = run_in(tmp_path).name
        code = await live_until(Strike(3), scene, Order(tmp_path, command, ("retry", first, "--yes")))
        assert code == -9, said(tmp_path)
        second = runs_in(tmp_path)[-1].name
        assert second != first
        assert await run(Order(tmp_path, command, ("resume", second))) == 0, said(tmp_path)
        assert_everybody_once(scene)


async def test_a_jobs_file_sent_twice_by_mistake_is_refused(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        job: Line = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push"}
        write_jobs(tmp_path, [{**job, "to": {"external_id": [f"r{row}"]}} for row in range(40)])
        assert await sent_and_resumed(scene, "jobs.jsonl", [Strike(2)]) == 0, said(tmp_path)
        (tmp_path / "jobs.jsonl").rename(tmp_path / "copy.jsonl")
        assert await run(Order(tmp_path, command, ("send", "copy.jsonl", "--yes"))) == 2
        assert_everybody_once(scene, rows=40)
