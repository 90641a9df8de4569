"""A disk that is full for a while, and one that fails: nothing is lost, and the exit code says it."""

from pathlib import Path
from random import Random

from tests.crash.deaths import live_until
from tests.crash.embedded import live
from tests.crash.inputs import PACK, job_lines, poison, write_campaign, write_jobs, write_settings
from tests.crash.judge import all_of, deliveries, judge, noted
from tests.crash.mischief import broken_for_once, full_for_a_while
from tests.crash.processes import Order, command, said
from tests.crash.runs import judge_report, report_in, run_in, sent_and_resumed, told_in
from tests.crash.scene import scene_in
from tests.support.mocked import assert_clean

JOBS = 120
ROWS = 100 * PACK
STORAGE_FAILED = 5


async def test_a_jobs_file_waits_while_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    lines = job_lines(Random(1), JOBS)
    async with scene_in(tmp_path, poisoned=poison(JOBS)) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_jobs(tmp_path, lines)
        code = await sent_and_resumed(scene, "jobs.jsonl", [], mischief=(full_for_a_while,))
        assert code == 3, said(tmp_path)
        assert "full" in said(tmp_path)
        judge(scene.server, lines, all_of(lines, told_in(run_in(tmp_path))), kills=0)
        judge_report(run_in(tmp_path), scene.server)


async def test_a_campaign_waits_while_the_disk_is_full_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        code = await sent_and_resumed(scene, "campaign.toml", [], mischief=(full_for_a_while,))
        assert code == 0, said(tmp_path)
        assert deliveries(scene.server) == {f"r{row}": 1 for row in range(ROWS)}
        judge_report(run_in(tmp_path), scene.server)


async def test_a_disk_that_fails_ends_a_jobs_file_in_5_and_it_is_resumed_without_loss(tmp_path: Path) -> None:
    lines = job_lines(Random(2), JOBS)
    async with scene_in(tmp_path, poisoned=poison(JOBS)) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_jobs(tmp_path, lines)
        code = await sent_and_resumed(scene, "jobs.jsonl", [], mischief=(broken_for_once,))
        assert code == STORAGE_FAILED, said(tmp_path)
        assert report_in(run_in(tmp_path))["exit_code"] == STORAGE_FAILED
        code = await live_until(None, scene, Order(tmp_path, command, ("resume", "latest")))
        assert code == 3, said(tmp_path)
        judge(scene.server, lines, all_of(lines, told_in(run_in(tmp_path))), kills=1)
        judge_report(run_in(tmp_path), scene.server)


async def test_a_disk_that_fails_ends_a_campaign_in_5_and_it_is_resumed_without_loss(tmp_path: Path) -> None:
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_campaign(tmp_path, ROWS)
        assert await sent_and_resumed(scene, "campaign.toml", [], mischief=(broken_for_once,)) == STORAGE_FAILED
        code = await live_until(None, scene, Order(tmp_path, command, ("resume", "latest")))
        assert code == 0, said(tmp_path)
        assert_clean(scene.server.summary())
        assert deliveries(scene.server) == {f"r{row}": 1 for row in range(ROWS)}
        judge_report(run_in(tmp_path), scene.server)


async def test_a_program_goes_on_when_there_is_room_and_loses_nothing_to_a_disk_that_fails(tmp_path: Path) -> None:
    lines = job_lines(Random(3), JOBS)
    async with scene_in(tmp_path, poisoned=poison(JOBS)) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_jobs(tmp_path, lines)
        code = await live_until(None, scene, Order(tmp_path, live, (0, 40), mischief=(full_for_a_while,)))
        assert code == 0, said(tmp_path)
        code = await live_until(None, scene, Order(tmp_path, live, (40, 80), mischief=(broken_for_once,)))
        assert code == 1, said(tmp_path)  # submit has raised: what was being written, or what came after that
        assert "no more jobs are taken" in said(tmp_path)
        assert "disk I/O error" in said(tmp_path)
        code = await live_until(None, scene, Order(tmp_path, live, (80, JOBS)))
        assert code == 0, said(tmp_path)
        judge(scene.server, lines, noted(tmp_path), kills=1)
