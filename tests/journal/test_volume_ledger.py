"""One suite for both volume ledgers, and what only a file has to go through."""

import asyncio
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from sendengine.errors import StorageError
from sendengine.journal import whole_file
from sendengine.journal.volume_ledger import FileVolumeLedger, MemoryVolumeLedger, open_volume_ledger
from sendengine.ports import Admission, VolumeLedger
from tests.support.programs import Program, ended, line_of, started

NOON_S = 1_800_000_000.0  # a quarter of an hour begins here
NAME = "volume-app.json"


class Wall:
    """A wall clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / NAME


@pytest.fixture(params=["file", "memory"])
def ledger(request: pytest.FixtureRequest, path: Path, wall: Wall) -> VolumeLedger:
    if request.param == "file":
        return FileVolumeLedger(path, window="rolling", now_s=wall)
    return MemoryVolumeLedger(window="rolling", now_s=wall)


async def test_the_total_stays_below_the_limit_and_what_fits_in_part_is_granted_in_part(ledger: VolumeLedger) -> None:
    assert await ledger.used() == 0
    assert await ledger.reserve(60, limit=100) == Admission(60)
    assert await ledger.reserve(60, limit=100) == Admission(39)
    assert await ledger.used() == 99


async def test_a_full_window_says_when_to_ask_again_and_then_grants(ledger: VolumeLedger, wall: Wall) -> None:
    await ledger.reserve(60, limit=100)
    wall.now_s += 100
    await ledger.reserve(39, limit=100)
    refused = await ledger.reserve(50, limit=100)
    assert refused == Admission(0, 805.0)
    wall.now_s += refused.again_in_s
    assert await ledger.used() == 39
    assert await ledger.reserve(50, limit=100) == Admission(50)


@pytest.mark.parametrize("limit", [1, 0, -1])
async def test_where_nothing_may_ever_be_sent_it_says_to_ask_again_after_a_window(
    ledger: VolumeLedger, limit: int
) -> None:
    assert await ledger.reserve(1, limit=limit) == Admission(0, 905.0)
    assert await ledger.used() == 0


async def test_reserving_nothing_is_granted_nothing_at_once(ledger: VolumeLedger) -> None:
    assert await ledger.reserve(0, limit=100) == Admission(0, 0.0)


async def test_what_was_not_used_is_given_back_newest_first_and_no_more_than_was_granted(
    ledger: VolumeLedger, wall: Wall
) -> None:
    await ledger.reserve(60, limit=1000)
    wall.now_s += 100
    await ledger.reserve(30, limit=1000)
    await ledger.give_back(40)  # all of the second, and ten of the first
    assert await ledger.used() == 50
    wall.now_s += 805
    assert await ledger.used() == 0, "what is left is of the first second"
    await ledger.give_back(1000)
    assert await ledger.used() == 0


async def test_a_clock_set_back_by_a_day_neither_frees_what_is_used_nor_holds_for_a_day(
    ledger: VolumeLedger, wall: Wall
) -> None:
    await ledger.reserve(99, limit=100)
    wall.now_s -= 86_400
    assert await ledger.used() == 99
    refused = await ledger.reserve(1, limit=100)
    assert refused == Admission(0, 905.0)
    wall.now_s += 905
    assert await ledger.reserve(1, limit=100) == Admission(1)


async def test_many_at_once_never_exceed(ledger: VolumeLedger) -> None:
    grants = await asyncio.gather(*[ledger.reserve(10, limit=96) for _ in range(12)])
    assert sum(each.granted for each in grants) == 95


def leave(path: Path, data: bytes, *, at_s: float) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    os.utime(path, (at_s, at_s))


def content(path: Path) -> object:
    return msgspec.json.decode(path.read_bytes())


def file_ledger(path: Path, wall: Wall) -> FileVolumeLedger:
    return FileVolumeLedger(path, window="rolling", now_s=wall)


async def test_ledgers_of_one_file_share_its_count_and_each_gives_back_only_its_own(path: Path, wall: Wall) -> None:
    mine, theirs = file_ledger(path, wall), file_ledger(path, wall)
    await mine.reserve(60, limit=100)
    assert await theirs.reserve(60, limit=100) == Admission(39)
    await theirs.give_back(60)
    assert await mine.used() == 60


async def test_a_static_window_is_free_again_in_the_next_quarter(path: Path, wall: Wall) -> None:
    ledger = FileVolumeLedger(path, window="static", now_s=wall)
    wall.now_s += 800
    assert await ledger.reserve(500, limit=100) == Admission(99)
    assert await ledger.reserve(1, limit=100) == Admission(0, 100.0)
    wall.now_s += 100
    assert await ledger.reserve(500, limit=100) == Admission(99)


async def test_only_the_user_may_read_what_is_written(path: Path, wall: Wall) -> None:
    ledger = file_ledger(path, wall)
    await ledger.reserve(1, limit=100)
    assert sorted(each.name for each in path.parent.iterdir()) == [NAME, f"{NAME}.lock"]
    assert {each.stat().st_mode & 0o777 for each in path.parent.iterdir()} == {0o600}
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_the_file_is_its_blocks_and_nothing_secret(path: Path, wall: Wall) -> None:
    await file_ledger(path, wall).reserve(7, limit=100)
    assert content(path) == {"blocks": [[1_800_000_000, 7]], "full_until_s": 0.0, "schema": 1}


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe\x00",
        b"[]",
        b'{"blocks":[[1,-5]]}',
        b'{"blocks":[["x",1]]}',
        b'{"schema":2}',
        b'{"more":1}',
    ],
)
async def test_a_damaged_file_is_set_aside_and_nothing_is_granted_for_fifteen_minutes_after_it_was_written(
    path: Path, wall: Wall, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    leave(path, damage, at_s=NOON_S - 300)
    ledger = file_ledger(path, wall)
    with caplog.at_level(logging.WARNING):
        assert await ledger.reserve(1, limit=100) == Admission(0, 605.0)
        assert await ledger.used() == 0
        await ledger.give_back(5)
    assert path.with_name(f"{NAME}.damaged").read_bytes() == damage
    assert [each.levelname for each in caplog.records] == ["WARNING"], "it says so once"
    wall.now_s += 604
    assert (await ledger.reserve(1, limit=100)).granted == 0
    wall.now_s += 1
    assert (await ledger.reserve(1, limit=100)).granted == 1


async def test_a_clock_set_back_does_not_prolong_what_a_damaged_file_costs(path: Path, wall: Wall) -> None:
    leave(path, b"torn", at_s=NOON_S)
    ledger = file_ledger(path, wall)
    await ledger.reserve(1, limit=100)
    wall.now_s -= 86_400
    assert await ledger.reserve(1, limit=100) == Admission(0, 905.0)
    wall.now_s += 905
    assert await ledger.reserve(1, limit=100) == Admission(1)


async def test_a_crash_before_the_copy_takes_its_place_leaves_the_old_count(
    path: Path, wall: Wall, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = file_ledger(path, wall)
    await ledger.reserve(60, limit=100)

    def die(_self: Path, _target: Path) -> Path:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(Path, "replace", die)
        with pytest.raises(StorageError, match=r"cannot write .*volume-app\.json: Input/output error"):
            await ledger.reserve(10, limit=100)
    assert not path.with_name(f"{NAME}.new").exists()
    path.with_name(f"{NAME}.new").write_bytes(b"what a crash left")
    assert await file_ledger(path, wall).reserve(100, limit=100) == Admission(39)
    assert not path.with_name(f"{NAME}.new").exists()


async def test_no_thread_is_left_behind(path: Path, wall: Wall) -> None:
    before = set(threading.enumerate())
    ledger = file_ledger(path, wall)
    await ledger.reserve(1, limit=100)
    await ledger.give_back(1)
    for thread in set(threading.enumerate()) - before:
        thread.join(timeout=5)
    assert set(threading.enumerate()) <= before


async def test_cancelling_a_reservation_leaves_the_file_whole_and_the_ledger_usable(path: Path, wall: Wall) -> None:
    ledger = file_ledger(path, wall)
    with whole_file.locked(path):
        waiting = asyncio.ensure_future(ledger.reserve(10, limit=100))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert (await ledger.reserve(10, limit=100)).granted == 10


def test_where_the_directory_cannot_be_made_the_count_is_kept_in_memory_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("not a directory")
    ledger = open_volume_ledger(tmp_path / "file" / "state", app_id="app", window="rolling")
    assert isinstance(ledger, MemoryVolumeLedger)
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "counted for this process alone" in caplog.text


async def test_an_app_id_cannot_lead_out_of_the_directory(tmp_path: Path) -> None:
    ledger = open_volume_ledger(tmp_path / "state", app_id="../../é/x", window="rolling")
    await ledger.reserve(1, limit=100)
    assert {each.name for each in (tmp_path / "state").iterdir()} == {
        "volume-..%2F..%2F%C3%A9%2Fx.json",
        "volume-..%2F..%2F%C3%A9%2Fx.json.lock",
    }


PROCESS = """
import asyncio, sys
from pathlib import Path
from sendengine.journal.volume_ledger import open_volume_ledger

async def main():
    ledger = open_volume_ledger(Path(sys.argv[1]), app_id="app", window="rolling")
    for _ in range(int(sys.argv[2])):
        print((await ledger.reserve(30, limit=1000)).granted, flush=True)

asyncio.run(main())
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Program]]:
    with ExitStack() as programs:

        def begin(times: int) -> Program:
            arguments = (sys.executable, "-c", PROCESS, str(tmp_path), str(times))
            return programs.enter_context(started(*arguments, stdout=subprocess.PIPE))

        yield begin


def total(process: Program) -> int:
    return sum(int(line) for line in ended(process)[0].split())


def test_three_processes_one_after_another_never_exceed(start: Callable[[int], Program]) -> None:
    assert [total(start(15)) for _ in range(3)] == [450, 450, 99]


def test_two_processes_at_once_never_exceed_and_lose_nothing(start: Callable[[int], Program]) -> None:
    both = [start(25), start(25)]
    assert sum(total(each) for each in both) == 999


def test_a_process_that_is_killed_at_any_instant_leaves_a_readable_file(
    start: Callable[[int], Program], tmp_path: Path
) -> None:
    path = tmp_path / NAME
    for replies in (1, 5):
        process = start(100_000)
        for _ in range(replies):
            line_of(process)
        process.kill()
        ended(process)
        assert isinstance(content(path), dict)
        with whole_file.locked(path):
            pass  # its lock went with it
