"""Damages the files of stores in every way, and looks at what comes back.

``python -m tests.journal.store_damage 10000`` tries so many cases. Whatever is damaged, a store opens to a state that
it once had, or names what it has set aside; no job and no request comes back that was never there.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from sendengine import StorageError
from sendengine.core.outcomes import Accepted, GaveUp
from sendengine.journal.connection import connect_sqlite
from sendengine.journal.opening import open_database
from sendengine.journal.outbox import Outbox
from sendengine.journal.recollection import Recollection, recollect
from sendengine.journal.records import JobEntry
from sendengine.ports import Portion, Seal
from tests.support.stores import a_seal, accepted, copied
from tests.support.virtual_loop import run_virtually

FILES: Final = ("a.db", "a.db-wal")
MEMORY: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a folder of a name of its own
State = tuple[frozenset[int], frozenset[int]]
"""Ids of the jobs and of the requests that count."""


class Template(Struct, frozen=True):
    """A store's files as a crash or a good end left them, and what had been in it."""

    files: Mapping[str, bytes]
    jobs: Mapping[int, JobEntry]
    seals: Mapping[int, Seal]
    states: frozenset[State]


def templates() -> list[Template]:
    """Stores that were closed, and that were left open: with all of it in the write-ahead log, and with a part."""
    with TemporaryDirectory(prefix="sendengine-damage-", dir=MEMORY) as folder:
        return [
            run_virtually(_made(Path(folder) / f"{number}", is_closed=is_closed, checkpoints_at=checkpoints_at))
            for number, (is_closed, checkpoints_at) in enumerate(((True, 0), (False, 0), (False, 20)))
        ]


def tried(cases: int, *, seed: int, made: list[Template]) -> tuple[int, int, int]:
    """Try so many cases; returns how many opened as they were, with something named, and not at all.

    AssertionError says what came back that must not; any other exception is a fault too.
    """
    chance = Random(seed)
    whole = named = refused = 0
    with TemporaryDirectory(prefix="sendengine-damage-", dir=MEMORY) as folder:
        for number in range(cases):
            place = Path(folder) / f"{number}"
            place.mkdir()
            template = chance.choice(made)
            _damage(template, place, chance)
            try:
                found, damaged = _recovered(place / FILES[0])
            except StorageError:
                refused += 1
            else:
                _check(found, template, is_named=bool(damaged), case=f"case {number} of seed {seed}")
                whole, named = whole + (not damaged), named + bool(damaged)
            for each in place.iterdir():
                each.unlink()
            place.rmdir()
    return whole, named, refused


def _recovered(path: Path) -> tuple[Recollection, tuple[str, ...]]:
    database, found = open_database(path, durability="relaxed", connect=connect_sqlite)
    try:
        recollection = recollect(found.records, is_damaged=bool(found.damaged))
        database.archived(1, repr)
        return recollection, (*found.damaged, *(what for what, _ in recollection.unreadable))
    finally:
        database.close()


def _check(found: Recollection, template: Template, *, is_named: bool, case: str) -> None:
    for job, entry in found.jobs.items():
        known = template.jobs.get(job)
        assert known is not None, f"{case}: there never was a job {job}"
        written = replace(known, message=b"")  # that is the job's own now
        assert replace(entry, deaths=0, is_begun=False) == written, f"{case}: job {job} is another one"
    for request, kept in found.requests.items():
        assert template.seals.get(request) == kept.seal, f"{case}: request {request} is another one"
    if not is_named:
        state = frozenset(found.jobs), frozenset(found.requests)
        assert state in template.states, f"{case}: nothing is named, and it never was in this state"


def _damage(template: Template, place: Path, chance: Random) -> None:
    data = {name: bytearray(content) for name, content in template.files.items()}
    for _ in range(chance.choice((1, 1, 1, 2, 5))):
        victim = data[chance.choice([name for name in data if data[name]])]
        _hurt(victim, chance)
    for name, content in data.items():
        (place / name).write_bytes(content)


def _hurt(victim: bytearray, chance: Random) -> None:
    at = chance.randrange(min(len(victim), chance.choice((100, 4096, len(victim)))))
    match chance.randrange(6):
        case 0 | 1:
            victim[at] ^= 1 << chance.randrange(8)
        case 2:
            victim[at] = chance.randrange(256)
        case 3:
            length = min(chance.choice((4, 24, 512, 4096)), len(victim) - at)
            victim[at : at + length] = chance.choice((bytes(length), chance.randbytes(length)))
        case 4:
            del victim[at:]
        case _:  # a page that belongs elsewhere, or an older one
            page, other = (chance.randrange(max(1, len(victim) // 4096)) * 4096 for _ in range(2))
            victim[page : page + 4096] = victim[other : other + 4096]
    if not victim:
        victim += b"\0"


async def _made(folder: Path, *, is_closed: bool, checkpoints_at: int) -> Template:
    outbox = await Outbox.open(folder / FILES[0])
    await outbox.recover(when_failed=_ignored)
    jobs, seals = dict[int, JobEntry](), dict[int, Seal]()
    live: list[tuple[int, int]] = []
    states = {_state([])}
    chance = Random(1)
    for number in range(40):
        job = await accepted(outbox, number, **({"key": f"{number}", "fingerprint": b"f"} if number % 3 == 0 else {}))
        jobs[job] = outbox._jobs[job]
        states |= {(jobs_, requests) for jobs_, requests in ((_state(live)[0] | {job}, _state(live)[1]),)}
        seal = a_seal((job, (f"u{number}",)), key=f"{number:08}-aaf6-5a58-889e-b136-7c74a864b434", body=bytes(200))
        request = await outbox.seal(seal)
        seals[request] = seal
        live.append((job, request))
        states.add(_state(live))
        if chance.random() < 0.6:
            over, settled = live.pop(chance.randrange(len(live)))
            outcome = chance.choice((Accepted(("m",)), GaveUp("status 500", maybe_sent=True)))
            outbox.settle([Portion(over, ("u",), outcome, is_last=True)], request=settled)
            await outbox.flush()
            states.add(_state(live))
        if number == checkpoints_at and checkpoints_at:
            await outbox.store._writer.run(outbox.store._database.checkpoint)
    if is_closed:
        await outbox.aclose()
    crashed = copied(outbox.store.path, into=folder / "crashed")
    files = {name: crashed.with_name(name).read_bytes() for name in FILES if crashed.with_name(name).exists()}
    await outbox.aclose()
    return Template(files, jobs, seals, frozenset(states))


def _state(live: list[tuple[int, int]]) -> State:
    return frozenset(job for job, _ in live), frozenset(request for _, request in live)


def _ignored(error: StorageError) -> None:
    raise error


def _each_thousand(cases: int) -> Iterator[tuple[int, int]]:
    for seed in range(-(-cases // 1000)):
        yield seed, min(1000, cases - 1000 * seed)


if __name__ == "__main__":
    MADE = templates()
    for seed, count in _each_thousand(int(sys.argv[1])):
        print(seed, *tried(count, seed=seed, made=MADE), flush=True)  # noqa: T201 - it speaks to whoever runs it
