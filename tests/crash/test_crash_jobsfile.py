"""A jobs file is sent, killed and resumed again and again; the mock server's ledger judges it, and its report."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from tests.crash.counts import kills_of
from tests.crash.deaths import Death, deaths_of
from tests.crash.inputs import job_lines, poison, write_jobs, write_settings
from tests.crash.judge import all_of, assert_no_secret, judge
from tests.crash.mischief import hasty
from tests.crash.processes import said
from tests.crash.runs import judge_report, run_in, sent_and_resumed, told_in
from tests.crash.scene import TROUBLE, scene_in

LIVES = 4
JOBS_OF_A_LIFE = 30
EXIT_NOT_ALL = 3


async def killed_and_judged(folder: Path, deaths: Sequence[Death], *, seed: int) -> int:
    """Let the runs of one file die of all of them, and come to its end; returns how often it died."""
    lines = job_lines(Random(seed), (len(deaths) + 1) * JOBS_OF_A_LIFE)
    faults = TROUBLE if seed % 3 == 2 else ()
    async with scene_in(folder, poisoned=poison(len(lines)), faults=faults, seed=seed) as scene:
        write_settings(folder, scene.server.base_url)
        write_jobs(folder, lines)
        code = await sent_and_resumed(scene, "jobs.jsonl", deaths, mischief=(hasty,))
        assert code == EXIT_NOT_ALL, said(folder)
        run = run_in(folder)
        told = told_in(run)
        try:
            judge(scene.server, lines, all_of(lines, told), kills=scene.kills)
            counts = judge_report(run, scene.server)
            outcomes = [outcome for each in told.values() for outcome in each]
            assert counts["read"] == len(lines)
            assert {name: counts[name] for name in ("rejected", "ambiguous")} == {
                name: outcomes.count(name) for name in ("rejected", "ambiguous")
            }
            assert counts["accepted"] == len(lines) - len(outcomes)
        except AssertionError as error:
            raise AssertionError(f"{error}; {folder}; {deaths}") from error
    assert_no_secret(folder)
    rest = deaths[scene.kills + 1 :]  # it came to its end too soon for them
    return scene.kills + (await killed_and_judged(folder / "next", rest, seed=seed + 1) if rest else 0)


@pytest.mark.parametrize("seed", range(kills_of("jobs").batches))
async def test_a_jobs_file_killed_and_resumed_is_sent_once_and_its_report_adds_up(tmp_path: Path, seed: int) -> None:
    parts = deaths_of("jobs", seed, lives=LIVES)
    died = await asyncio.gather(
        *(killed_and_judged(tmp_path / str(n), part, seed=seed * 1000 + n) for n, part in enumerate(parts))
    )
    kills_of("jobs").check(sum(died))
