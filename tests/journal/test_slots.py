"""Slots: engines side by side have one each, and what a dead one left is adopted by one of the living."""

import asyncio
import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from sendengine import Accepted, StorageError
from sendengine.journal.outbox import Outbox
from sendengine.journal.slots import Slots, open_slots, slot_path
from sendengine.ports import Portion
from sendengine.settings import JournalSettings
from tests.support.programs import Program, ended, line_of, started
from tests.support.stores import accepted

SETTINGS = JournalSettings()

OWNER = dedent("""
    import asyncio, sys
    from pathlib import Path
    from sendengine import CreateNotification, external_id
    from sendengine.journal.slots import open_slots
    from sendengine.settings import JournalSettings

    async def main(state_dir):
        slots = await open_slots(state_dir, JournalSettings())
        await slots.own.recover(when_failed=print)
        written = asyncio.get_running_loop().create_future()
        job = CreateNotification(to=external_id("u1"), channel="push", message={"contents": {"en": "Hi"}})
        slots.own.accept(job, app="shop", done=written.set_result)
        await written
        print(slots.own.store.path.name, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await slots.aclose()

    asyncio.run(main(Path(sys.argv[1])))
""")


def owner(state_dir: Path) -> AbstractContextManager[Program]:
    """A process that has taken a slot, put a job into it, and lives until its input ends."""
    return started(sys.executable, "-c", OWNER, str(state_dir), stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def names(slots: Slots) -> tuple[str, list[str]]:
    return slots.own.store.path.name, sorted(each.store.path.name for each in slots.adopted)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
async def test_a_child_that_is_forked_off_does_not_hold_its_parents_slot(tmp_path: Path) -> None:
    slots = await open_slots(tmp_path, SETTINGS)
    (begun, begin), (over, end) = os.pipe(), os.pipe()
    if not (child := os.fork()):
        os.close(end)
        os.write(begin, b".")
        os.read(over, 1)  # until the parent has closed it
        os._exit(0)
    os.read(begun, 1)
    await slots.aclose()
    again = await open_slots(tmp_path, SETTINGS)
    assert names(again) == ("engine-1.db", [])
    await again.aclose()
    for descriptor in (begun, begin, over, end):
        os.close(descriptor)
    assert os.waitpid(child, 0) == (child, 0)  # noqa: ASYNC222 - it ends at once


def test_four_processes_side_by_side_have_a_slot_each_and_the_dead_ones_are_adopted(tmp_path: Path) -> None:
    with ExitStack() as owners:
        four_and_their_heirs(tmp_path, [owners.enter_context(owner(tmp_path)) for _ in range(4)])


def four_and_their_heirs(tmp_path: Path, processes: Sequence[Program]) -> None:
    slots_of = {line_of(process).strip(): process for process in processes}
    assert sorted(slots_of) == [f"engine-{number}.db" for number in (1, 2, 3, 4)]
    os.kill(slots_of["engine-2.db"].pid, signal.SIGKILL)
    os.kill(slots_of["engine-4.db"].pid, signal.SIGKILL)
    for name in ("engine-2.db", "engine-4.db"):
        ended(slots_of[name])

    async def adopter() -> None:
        slots = await open_slots(tmp_path, SETTINGS)
        assert names(slots) == ("engine-2.db", ["engine-4.db"])  # never those of the living
        for outbox in (slots.own, *slots.adopted):
            found = await outbox.recover(when_failed=print)
            assert len(found.jobs) == 1
        other = await open_slots(tmp_path, SETTINGS)
        assert names(other) == ("engine-5.db", [])  # what is adopted is not adopted again
        await other.aclose()
        await slots.aclose()

    asyncio.run(adopter())
    for name in ("engine-1.db", "engine-3.db"):
        ended(slots_of[name], "")

    async def heir() -> None:
        slots = await open_slots(tmp_path, SETTINGS)
        assert names(slots) == ("engine-1.db", ["engine-2.db", "engine-3.db", "engine-4.db"])
        await slots.aclose()

    asyncio.run(heir())


async def test_a_slot_that_is_empty_is_not_adopted(tmp_path: Path) -> None:
    first, second = await open_slots(tmp_path, SETTINGS), await open_slots(tmp_path, SETTINGS)
    assert (names(first), names(second)) == (("engine-1.db", []), ("engine-2.db", []))
    await second.own.recover(when_failed=print)
    await accepted(second.own)
    await first.aclose()
    await second.aclose()
    third = await open_slots(tmp_path, SETTINGS)
    assert names(third) == ("engine-1.db", ["engine-2.db"])
    await third.aclose()
    await third.aclose()


async def test_a_slot_that_cannot_be_read_is_left_alone_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "engine-3.db").mkdir()
    slots = await open_slots(tmp_path, SETTINGS)
    assert names(slots) == ("engine-1.db", [])
    assert "engine-3.db is left alone" in caplog.text
    await slots.aclose()


async def test_an_own_slot_that_cannot_be_had_is_an_error_and_its_lock_is_free_again(tmp_path: Path) -> None:
    slot_path(tmp_path, 1).mkdir()
    for _ in range(2):
        with pytest.raises(StorageError, match=r"engine-1\.db"):
            await open_slots(tmp_path, SETTINGS)
    slot_path(tmp_path, 1).rmdir()
    slots = await open_slots(tmp_path, SETTINGS)
    assert names(slots) == ("engine-1.db", [])
    await slots.aclose()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError):
        await open_slots(tmp_path / "file" / "state", SETTINGS)


async def test_what_a_dead_engine_leaves_later_is_adopted_too_and_a_slot_that_is_empty_is_given_back(
    tmp_path: Path,
) -> None:
    first, second = await open_slots(tmp_path, SETTINGS), await open_slots(tmp_path, SETTINGS)
    assert await first.adopt() == []  # the other lives
    await second.own.recover(when_failed=print)
    record = await accepted(second.own)
    await second.aclose()
    (outbox,) = await first.adopt()
    assert names(first) == ("engine-1.db", ["engine-2.db"])
    assert await first.adopt() == []
    found = await outbox.recover(when_failed=print)
    outbox.settle([Portion(found.jobs[0].id, ("u1",), Accepted(), is_last=True)], request=None)
    await outbox.flush()
    assert (found.jobs[0].id, outbox.is_empty) == (record, True)
    await first.give_back(outbox)
    assert names(first) == ("engine-1.db", [])
    third = await open_slots(tmp_path, SETTINGS)
    assert names(third) == ("engine-2.db", [])
    await third.aclose()
    await first.aclose()


async def test_an_empty_slot_is_opened_once_and_again_when_somebody_has_written_into_it(tmp_path: Path) -> None:
    first, second = await open_slots(tmp_path, SETTINGS), await open_slots(tmp_path, SETTINGS)
    await second.aclose()
    opened: list[str] = []
    really = Outbox.open

    async def noted(path: Path, **options: Any) -> Outbox:
        opened.append(path.name)
        return await really(path, **options)

    first._open = noted
    for _ in range(3):
        assert await first.adopt() == []
    assert opened == ["engine-2.db"]
    second = await open_slots(tmp_path, SETTINGS)
    await second.own.recover(when_failed=print)
    await accepted(second.own)
    await second.aclose()
    assert len(await first.adopt()) == 1
    await first.aclose()


async def test_a_slot_that_was_empty_is_adopted_when_its_next_owner_was_killed(tmp_path: Path) -> None:
    first, second = await open_slots(tmp_path, SETTINGS), await open_slots(tmp_path, SETTINGS)
    await second.aclose()
    assert await first.adopt() == []
    for _ in range(2):  # what a killed process wrote stands in the log beside the file
        with owner(tmp_path) as process:
            assert line_of(process).strip() == "engine-2.db"
            os.kill(process.pid, signal.SIGKILL)
            ended(process)
        (outbox,) = await first.adopt()
        found = await outbox.recover(when_failed=print)
        outbox.settle([Portion(job.id, ("u1",), Accepted(), is_last=True) for job in found.jobs], request=None)
        await first.give_back(outbox)
        assert await first.adopt() == []
    await first.aclose()


def make_unusable(lock: Path) -> None:
    """Make a lock that nobody can open, whatever rights they have."""
    lock.unlink(missing_ok=True)
    lock.mkdir()


async def test_a_slot_whose_lock_cannot_be_opened_holds_up_no_other_and_is_named_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = await open_slots(tmp_path, SETTINGS)
    for other in [await open_slots(tmp_path, SETTINGS) for _ in range(3)]:
        await other.own.recover(when_failed=print)
        await accepted(other.own)
        await other.aclose()
    make_unusable(tmp_path / "engine-3.lock")
    for _ in range(3):
        await first.adopt()
        assert names(first) == ("engine-1.db", ["engine-2.db", "engine-4.db"])
    assert caplog.text.count("engine-3.db is left alone") == 1
    (tmp_path / "engine-3.lock").rmdir()
    assert [outbox.store.path.name for outbox in await first.adopt()] == ["engine-3.db"]
    await first.aclose()


async def test_an_engine_starts_beside_slots_whose_locks_cannot_be_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = [await open_slots(tmp_path, SETTINGS) for _ in range(4)]
    for slots in before:
        await slots.aclose()
    for number in (1, 2, 4):
        make_unusable(tmp_path / f"engine-{number}.lock")
    slots = await open_slots(tmp_path, SETTINGS)
    assert names(slots) == ("engine-3.db", [])
    for number in (1, 2, 4):
        assert f"engine-{number}.db is left alone" in caplog.text
    await slots.aclose()


@pytest.mark.parametrize(("call", "why"), [("open", errno.EROFS), ("open", errno.EMFILE), ("flock", errno.ENOLCK)])
async def test_where_no_lock_can_be_made_or_taken_that_is_said_and_no_other_number_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, why: int
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(why, os.strerror(why))

    with monkeypatch.context() as patch:
        patch.setattr(os if call == "open" else fcntl, call, refuse)
        with pytest.raises(StorageError, match=os.strerror(why)):
            await open_slots(tmp_path, SETTINGS)
    names_of = [path.name for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir()))]
    assert set(names_of) <= {"engine-1.lock"}
    slots = await open_slots(tmp_path, SETTINGS)
    assert names(slots) == ("engine-1.db", [])
    await slots.aclose()


async def test_a_slot_that_could_not_be_opened_once_is_tried_again(tmp_path: Path) -> None:
    first, second = await open_slots(tmp_path, SETTINGS), await open_slots(tmp_path, SETTINGS)
    await second.own.recover(when_failed=print)
    await accepted(second.own)
    await second.aclose()
    really = first._open

    async def refuse(path: Path) -> Outbox:
        raise StorageError(f"too many open files: {path}")

    first._open = refuse
    assert await first.adopt() == []
    first._open = really
    assert len(await first.adopt()) == 1
    await first.aclose()


async def test_a_directory_that_cannot_be_read_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await open_slots(tmp_path, SETTINGS)

    def refuse(*_: object) -> list[Path]:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "glob", refuse)
        with pytest.raises(StorageError):
            await first.adopt()
    assert await first.adopt() == []
    await first.aclose()
