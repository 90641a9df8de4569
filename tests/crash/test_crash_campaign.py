"""Campaigns are killed and resumed again and again; the mock server's ledger judges them, and their reports."""

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.crash.counts import kills_of
from tests.crash.deaths import Death, deaths_of
from tests.crash.inputs import PACK, poison, write_campaign, write_changes, write_settings
from tests.crash.judge import assert_no_secret, assert_nobody, deliveries, updates_of
from tests.crash.mischief import hasty
from tests.crash.processes import said
from tests.crash.runs import judge_report, run_in, sent_and_resumed
from tests.crash.scene import TROUBLE, scene_in
from tests.support.mocked import assert_clean

LIVES = 4
REQUESTS_OF_A_LIFE = 25
BAD = 4
CHANGES_OF_A_LIFE = 60
EXIT_NOT_ALL = 3


async def killed_and_judged(folder: Path, deaths: Sequence[Death], *, seed: int) -> int:
    """Let the runs of a campaign die of all of them, and come to its end; returns how often it died."""
    is_personal = seed % 2 == 1
    bad = 0 if is_personal else BAD  # each would be a failed request, and use up the error budget
    rows = (len(deaths) + 1) * (REQUESTS_OF_A_LIFE * (1 if is_personal else PACK))
    faults = TROUBLE if seed % 3 == 2 else ()
    async with scene_in(folder, poisoned=poison(BAD), faults=faults, seed=seed) as scene:
        write_settings(folder, scene.server.base_url)
        write_campaign(folder, rows, bad=bad, is_personal=is_personal)
        code = await sent_and_resumed(scene, "campaign.toml", deaths, mischief=(hasty,))
        assert code == (EXIT_NOT_ALL if bad else 0), said(folder)
        try:
            assert_clean(scene.server.summary())
            reached = deliveries(scene.server)
            assert_nobody((item for item, count in reached.items() if count > 1), "reached twice")
            file = (folder / "recipients.csv").read_text().split()[1:]
            assert_nobody(set(file) - poison(BAD) - reached.keys(), "lost")
            counts = judge_report(run_in(folder), scene.server)
            assert (counts["read"], counts["accepted"], counts["rejected"]) == (rows, rows - bad, bad)
        except AssertionError as error:
            raise AssertionError(f"{error}; {folder}; {deaths}") from error
    assert_no_secret(folder)
    rest = deaths[scene.kills + 1 :]  # it came to its end too soon for them
    return scene.kills + (await killed_and_judged(folder / "next", rest, seed=seed + 1) if rest else 0)


@pytest.mark.parametrize("seed", range(kills_of("campaign").batches))
async def test_a_campaign_killed_and_resumed_reaches_everybody_once(tmp_path: Path, seed: int) -> None:
    parts = deaths_of("campaign", seed, lives=LIVES)
    died = await asyncio.gather(
        *(killed_and_judged(tmp_path / str(n), part, seed=seed * 1000 + n) for n, part in enumerate(parts))
    )
    kills_of("campaign").check(sum(died))


async def changes_killed_and_judged(folder: Path, deaths: Sequence[Death]) -> int:
    rows = (len(deaths) + 1) * CHANGES_OF_A_LIFE
    users = rows // 2
    async with scene_in(folder) as scene:
        write_settings(folder, scene.server.base_url)
        write_changes(folder, rows, users=users)
        code = await sent_and_resumed(scene, "campaign.toml", deaths)
        assert code == 0, said(folder)
        try:
            assert_clean(scene.server.summary())
            for user in range(users):
                levels = [int(body["properties"]["tags"]["level"]) for body in updates_of(scene.server, f"user{user}")]
                last = [row for row in range(rows) if row % users == user][-1]
                assert levels, f"user{user} was lost"
                assert levels[-1] == last, f"user{user} ended at {levels}"
                dips = sum(after < before for before, after in pairwise(levels))
                assert dips <= scene.kills, f"user{user}: {levels}"
            counts = judge_report(run_in(folder), scene.server)
            assert (counts["read"], counts["accepted"]) == (rows, rows)
        except AssertionError as error:
            raise AssertionError(f"{error}; {folder}; {deaths}") from error
    rest = deaths[scene.kills + 1 :]
    return scene.kills + (await changes_killed_and_judged(folder / "next", rest) if rest else 0)


@pytest.mark.parametrize("seed", range(kills_of("changes").batches))
async def test_user_changes_killed_and_resumed_all_apply_in_their_order(tmp_path: Path, seed: int) -> None:
    parts = deaths_of("changes", seed, lives=LIVES)
    died = await asyncio.gather(*(changes_killed_and_judged(tmp_path / str(n), part) for n, part in enumerate(parts)))
    kills_of("changes").check(sum(died))
