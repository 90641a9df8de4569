"""Torn and flipped bytes in a journal's files: a consistent state comes back, or what is damaged is named.

The images are those that a killed process leaves: the file and its write-ahead log, and the file alone. The states that
may come back without a word are those that were on disk at some time; where damage is named, what comes back is
nothing but jobs that were there, each as it was.

How many cases: ``CRASH_BYTES`` in the environment.
"""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest
from msgspec import Struct
from msgspec.structs import replace

from sendengine import Accepted, CreateNotification, Job, Rejected, UpdateUser, external_id
from sendengine.core.jobs import target_of
from sendengine.core.wire import WireRequest
from sendengine.errors import StorageError
from sendengine.journal.connection import Connection
from sendengine.journal.outbox import Outbox
from sendengine.ports import Part, Portion, Recovered, RecoveredJob, Seal
from tests.crash.counts import BYTES_CASES
from tests.crash.mischief import WRITES
from tests.crash.processes import OFTEN

NAME = "engine-1.db"
BATCHES = 10

Damage: TypeAlias = Callable[[bytearray, Random], bytearray]


class State(Struct, frozen=True):
    """What a journal holds, without what differs from one opening to the next."""

    jobs: Mapping[int, tuple[Job, str, int | None, tuple[Part, ...]]]
    requests: Mapping[int, Seal]


class Image(Struct, frozen=True):
    """The files of a journal, and every state that was on disk before them."""

    files: Mapping[str, bytes]
    states: tuple[State, ...]


def note(number: int) -> CreateNotification:
    ids = tuple(f"r{number}-{place}" for place in range(number % 4 + 1))
    return CreateNotification(to=external_id(*ids), channel="push", message={"contents": {"en": f"text {number % 3}"}})


def change(number: int) -> UpdateUser:
    deltas: dict[str, int] = {"session_count": 1} if number % 2 else {}
    return UpdateUser(external_id(f"user{number % 5}"), tags={"level": number, "pad": "x" * 40}, deltas=deltas)


def seal_of(jobs: list[tuple[int, Job]], *, key: str | None) -> Seal:
    body = b"{" + b",".join(b'"%d":%d' % (number, number) for number, _ in jobs) + b"}"
    members = tuple((number, target_of(job).ids) for number, job in jobs)
    return Seal("shop/create_notification", key, None, WireRequest("POST", "/notifications", body), members)


async def a_life(path: Path, *, steps: int, seen: Callable[[], None]) -> None:
    """Accept, seal, settle and unseal, with a look at the files after each group."""

    class Watched(sqlite3.Connection):
        """The real one, looked after."""

        def execute(self, sql: str, parameters: Sequence[Any] = (), /) -> sqlite3.Cursor:  # type: ignore[override]
            cursor = super().execute(sql, parameters)
            if sql.startswith(WRITES):
                seen()
            return cursor

    def connect(where: Path) -> Connection:
        return sqlite3.connect(where, timeout=0, isolation_level=None, factory=Watched)

    outbox = await Outbox.open(path, connect=connect)
    await outbox.recover(when_failed=lambda _: None)
    waiting: list[tuple[int, Job]] = []
    under_way: list[tuple[int, list[tuple[int, Job]]]] = []
    for step in range(steps):
        for number in range(step * 4, step * 4 + 4):
            job: Job = note(number) if number % 3 else change(number)
            key = f"key {number}" if number % 5 == 0 else None
            record = outbox.accept(job, app="shop", row=number, key=key, fingerprint=b"f", done=lambda _: None)
            waiting.append((record, job))
        riding, waiting = waiting[:3], waiting[3:]
        key = f"00000000-0000-4000-8000-{step:012}" if step % 4 else None
        under_way.append((await outbox.seal(seal_of(riding, key=key)), riding))
        if step % 3 == 2:
            request, jobs = under_way.pop(0)
            _settle(outbox, request, jobs)
        if step % 7 == 6:
            request, jobs = under_way.pop(0)
            outbox.unseal(request)
            waiting = [*jobs, *waiting]
        await outbox.flush()
    await outbox.aclose()
    seen()


def _settle(outbox: Outbox, request: int, jobs: list[tuple[int, Job]]) -> None:
    portions = []
    for place, (number, job) in enumerate(jobs):
        ids = target_of(job).ids
        outcome = Accepted(("m",), 0, ()) if place else Rejected(400, ("no",), attempts=1, not_sent=ids)
        portions.append(Portion(number, ids[:1], outcome, is_last=place != 1 or len(ids) == 1))
    outbox.settle(portions, request=request)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob(f"{NAME}*") if not path.name.endswith(".reserve")}


def put_back(folder: Path, files: Mapping[str, bytes]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder / NAME


async def opened(path: Path) -> Recovered:
    outbox = await Outbox.open(path)
    try:
        return await outbox.recover(when_failed=lambda _: None)
    finally:
        await outbox.aclose()


def state_of(found: Recovered) -> State:
    return State(
        {job.id: (job.job, job.app, job.row, _parts(job)) for job in found.jobs},
        {request.id: request.seal for request in found.requests},
    )


def _parts(job: RecoveredJob) -> tuple[Part, ...]:
    return tuple(sorted(job.parts, key=lambda part: part.recipients))


async def images(folder: Path) -> list[Image]:
    """What a process leaves that was killed early, later, and that closed its journal."""
    taken: list[dict[str, bytes]] = []
    (folder / "live").mkdir()
    await a_life(folder / "live" / NAME, steps=14, seen=lambda: taken.append(files_of(folder / "live")))
    states = [State({}, {})]
    states += [state_of(await opened(put_back(folder / "look", files))) for files in taken]
    return [Image(taken[place], tuple(states[: place + 2])) for place in (9, 25, len(taken) - 2, len(taken) - 1)]


def flip(data: bytearray, chance: Random) -> bytearray:
    for _ in range(chance.choice([1, 1, 2, 8])):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    return data


def tear(data: bytearray, chance: Random) -> bytearray:
    return data[: chance.randrange(len(data))]


def blank(data: bytearray, chance: Random) -> bytearray:
    """A sector, or a page, was never written."""
    size = chance.choice([16, 512, 4096])
    start = chance.randrange(len(data)) // size * size
    data[start : start + size] = bytes(len(data[start : start + size]))
    return data


def scramble(data: bytearray, chance: Random) -> bytearray:
    start = chance.randrange(len(data))
    length = len(data[start : start + chance.choice([4, 64, 1024])])
    data[start : start + length] = chance.randbytes(length)
    return data


def lengthen(data: bytearray, chance: Random) -> bytearray:
    return data + chance.randbytes(chance.randrange(1, 5000))


DAMAGES: tuple[Damage, ...] = (flip, flip, flip, tear, blank, scramble, lengthen)


async def judged(folder: Path, image: Image, chance: Random) -> str:
    """Damage an image, open it, and hold what comes back against what was there; returns how it went."""
    files = {name: data for name, data in image.files.items() if data}
    name = chance.choice(sorted(files))
    how = chance.choice(DAMAGES)
    damaged = {**files, name: bytes(how(bytearray(files[name]), chance))}
    path = put_back(folder, damaged)
    try:
        found = await opened(path)
    except StorageError as error:
        return _refusal(error, path)
    state = state_of(found)
    if state in image.states:
        return "named" if found.damaged else "whole"
    assert found.damaged, (
        f"{how.__name__} of {name}: a state that never was, without a word: {_difference(state, image)}"
    )
    assert any(str(folder) in text for text in found.damaged), found.damaged
    jobs = [every.jobs for every in image.states]
    for number, (job, app, row, parts) in state.jobs.items():
        known = [each[number] for each in jobs if number in each]
        assert (job, app, row) in [each[:3] for each in known], f"{how.__name__} of {name}: a wrong job {number}: {job}"
        assert set(parts) <= {part for each in known for part in each[3]}, f"wrong parts of {number}: {parts}"
    for number, seal in state.requests.items():
        assert _is_known(seal, number, image), f"{how.__name__} of {name}: a wrong request {number}: {seal}"
    await _goes_on(path, state)
    return "named"


def _refusal(error: StorageError, path: Path) -> str:
    """The file is named, and still there."""
    assert path.name in str(error)
    assert path.exists()
    return "refused"


def _is_known(seal: Seal, number: int, image: Image) -> bool:
    """Whether a request was there; where its other jobs are lost, fewer may ride in it."""
    known = [each.requests[number] for each in image.states if number in each.requests]
    return any(
        replace(seal, members=()) == replace(each, members=()) and set(seal.members) <= set(each.members)
        for each in known
    )


def _difference(state: State, image: Image) -> str:
    last = image.states[-1]
    jobs, requests = state.jobs.keys() ^ last.jobs.keys(), state.requests.keys() ^ last.requests.keys()
    return f"jobs {sorted(jobs)}, requests {sorted(requests)}"


async def _goes_on(path: Path, before: State) -> None:
    """What was salvaged takes new jobs, under ids of their own."""
    outbox = await Outbox.open(path)
    found = await outbox.recover(when_failed=lambda _: None)
    assert state_of(found) == before
    record = outbox.accept(note(1), app="shop", done=_raise)
    assert record not in before.jobs
    assert record not in before.requests
    await outbox.aclose()
    assert state_of(await opened(path)).jobs.keys() == {*before.jobs, record}


def _raise(error: StorageError | None) -> None:
    if error is not None:
        raise error


@pytest.mark.parametrize("batch", range(BATCHES if BYTES_CASES > 1000 else 1))
async def test_a_journal_with_damaged_bytes_comes_back_consistent_or_says_what_is_lost(
    tmp_path: Path, batch: int, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("CRITICAL")
    for target, value in OFTEN.items():
        monkeypatch.setattr(target.replace(":", "."), value)
    there = await images(tmp_path)
    cases = BYTES_CASES // (BATCHES if BYTES_CASES > 1000 else 1)
    ends = []
    for case in range(cases):
        chance = Random(batch * 1_000_000 + case)
        try:
            ends.append(await asyncio.wait_for(judged(tmp_path / "case", there[case % len(there)], chance), 30))
        except Exception as error:
            raise AssertionError(f"batch {batch}, case {case}, image {case % len(there)}: {error!r}") from error
    assert ends.count("refused") <= cases // 20, f"{ends.count('refused')} of {cases} were refused as a whole"
    assert {"whole", "named"} <= set(ends)
