"""Programs with an embedded engine are killed again and again; the mock server's ledger judges them."""

import asyncio
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from random import Random

import pytest

from tests.crash.counts import kills_of
from tests.crash.deaths import Death, deaths_of, live_until
from tests.crash.embedded import live
from tests.crash.inputs import Line, job_lines, poison, write_jobs, write_settings
from tests.crash.judge import assert_no_secret, deliveries, judge, noted
from tests.crash.mischief import hasty
from tests.crash.processes import Order, said
from tests.crash.sabotage import Point
from tests.crash.scene import TROUBLE, scene_in

LIVES = 4
JOBS_OF_A_LIFE = 25
WORKERS = 4
JOBS_OF_A_WORKER = 12


async def killed_and_judged(folder: Path, deaths: Sequence[Death], *, seed: int) -> int:
    """Let a program die of all of them, one after the other, and then come to its end; returns how often it died."""
    lines = job_lines(Random(seed), (len(deaths) + 1) * JOBS_OF_A_LIFE)
    faults = TROUBLE if seed % 3 == 2 else ()
    async with scene_in(folder, poisoned=poison(len(lines)), faults=faults, seed=seed) as scene:
        write_settings(folder, scene.server.base_url)
        write_jobs(folder, lines)
        for number, death in enumerate([*deaths, None]):
            slice_of_it = (number * JOBS_OF_A_LIFE, (number + 1) * JOBS_OF_A_LIFE)
            code = await live_until(death, scene, Order(folder, live, slice_of_it, mischief=(hasty,)))
            assert code in {0, -9}, said(folder)
        assert code == 0, said(folder)
        try:
            judge(scene.server, lines, noted(folder), kills=scene.kills)
        except AssertionError as error:
            raise AssertionError(f"{error}; {folder}; {deaths}") from error
    assert_no_secret(folder)
    return scene.kills


@pytest.mark.parametrize("seed", range(kills_of("program").batches))
async def test_a_program_killed_again_and_again_loses_nothing_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    parts = deaths_of("program", seed, lives=LIVES)
    died = await asyncio.gather(
        *(killed_and_judged(tmp_path / str(n), part, seed=seed * 1000 + n) for n, part in enumerate(parts))
    )
    kills_of("program").check(sum(died))


@pytest.mark.parametrize("seed", range(kills_of("workers").batches))
async def test_programs_side_by_side_on_one_state_directory_adopt_what_the_killed_ones_left(
    tmp_path: Path, seed: int
) -> None:
    rounds = -(-kills_of("workers").of_a_batch // WORKERS)
    count = rounds * WORKERS * JOBS_OF_A_WORKER
    lines = job_lines(Random(seed), count, apart=JOBS_OF_A_WORKER)
    drawn = chain.from_iterable(deaths_of("workers", seed, lives=WORKERS))
    async with scene_in(tmp_path, poisoned=poison(count)) as scene:
        write_settings(tmp_path, scene.server.base_url)
        write_jobs(tmp_path, lines)
        for first in range(0, count, WORKERS * JOBS_OF_A_WORKER):
            slices = [
                (first + worker * JOBS_OF_A_WORKER, first + (worker + 1) * JOBS_OF_A_WORKER)
                for worker in range(WORKERS)
            ]
            codes = await asyncio.gather(
                *(live_until(next(drawn, None), scene, Order(tmp_path, live, numbers)) for numbers in slices)
            )
            assert set(codes) <= {0, -9}, said(tmp_path)
        assert await live_until(None, scene, Order(tmp_path, live, (count, count))) == 0, said(tmp_path)
        judge(scene.server, lines, noted(tmp_path), kills=scene.kills)
        assert scene.kills >= rounds


MESSAGE: Line = {"kind": "create_notification", "message": {"contents": {"en": "Hi"}}, "channel": "push"}


@pytest.mark.parametrize(
    ("job", "outcome"),
    [
        ({"kind": "update_user", "user": {"external_id": "user0"}, "tags": {"level": "0", "j0": "1"}}, "gave_up"),
        ({**MESSAGE, "to": {"external_id": ["r0-0"]}}, "accepted"),
        ({**MESSAGE, "to": {"external_id": ["r0-0"]}, "idempotency_key": "order 0"}, "accepted"),
    ],
    ids=["update", "message", "caller's key"],
)
async def test_what_was_on_the_wire_when_six_processes_died_is_given_up_unless_it_has_a_key(
    tmp_path: Path, job: Line, outcome: str
) -> None:
    """It may be what kills them; with a key there is no harm in it, since OneSignal answers a repeat from memory."""
    write_jobs(tmp_path, [job])
    async with scene_in(tmp_path) as scene:
        write_settings(tmp_path, scene.server.base_url, wait_s=0.1)
        launched = Point("sendengine.engine.lane:Lane.launch", "after")
        for number in range(6):
            order = Order(tmp_path, live, (0, 1) if number == 0 else (1, 1))
            assert await live_until(launched, scene, order) == -9, said(tmp_path)
        assert await live_until(None, scene, Order(tmp_path, live, (1, 1))) == 0, said(tmp_path)
        assert noted(tmp_path).told == {0: [outcome]}
        assert deliveries(scene.server).total() == (outcome == "accepted")
