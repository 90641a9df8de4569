"""Engines with a journal, processes that are killed, and several disks, for tests on a virtual clock."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from msgspec.structs import replace

from sendengine import Job, Outcome, RequestRecord, SendEngine
from sendengine.engine import journals
from sendengine.ports import Journal, Observer, Part, Seal, WireRequest
from sendengine.settings import JournalSettings
from tests.support.engines import CREATE, assert_nothing_leaked, make_settings
from tests.support.fake_journal import Disk, FakeJournal
from tests.support.fake_transport import FakeTransport

KEY = "6ba7b810-9dad-11d1-80b4-00c04fd430c8"


def durable(
    state_dir: Path,
    transport: FakeTransport,
    journal: Journal | None,
    *,
    observer: Observer | None = None,
    ages: JournalSettings | None = None,
    **options: Any,
) -> SendEngine:
    """An engine on this journal; None: on the slots that ``ages`` ask for."""
    settings = replace(make_settings(state_dir, **options), journal=ages)
    return SendEngine(settings, observer=observer, open_transport=lambda *_: transport, journal=journal)


def seal_of(*members: tuple[int, tuple[str, ...]], key: str | None = KEY, lane: str = CREATE) -> Seal:
    """A request as an earlier version may have rendered it: not byte for byte what is rendered today."""
    ids = [item for _, part in members for item in part]
    body = {"idempotency_key": key, "contents": {"en": "Hi"}, "include_aliases": {"external_id": ids}, "old": 1}
    return Seal(lane, key, None, WireRequest("POST", "/notifications", orjson.dumps(body)), members)


async def kill(engine: SendEngine, journal: FakeJournal) -> None:
    """The process ends at this instant: nothing more reaches the disk."""
    journal.die()
    await engine.abort(grace_s=0)


def assert_nothing_left(engine: SendEngine, transport: FakeTransport, disk: Disk) -> None:
    """Every job has settled, in the engine and on disk."""
    assert_nothing_leaked(engine, transport)
    assert engine._admissions.writing == 0
    assert engine._admissions._keyed == {}
    assert all(lane.keeping == 0 for lane in engine._lanes.values())
    assert disk.jobs == {}
    assert disk.requests == {}


class FakeSlots:
    """Slots of an embedded engine: its own journal, and those that it adopts."""

    def __init__(self, own: FakeJournal, adopted: Sequence[FakeJournal] = ()) -> None:
        self.own = own
        self.adopted = list(adopted)
        self.dying: list[FakeJournal] = []  # left by engines that have died since
        self.given_back: list[FakeJournal] = []
        self.is_closed = False

    async def adopt(self) -> Sequence[FakeJournal]:
        found, self.dying = self.dying, []
        self.adopted += found
        return found

    async def give_back(self, journal: FakeJournal) -> None:
        self.adopted.remove(journal)
        self.given_back.append(journal)
        await journal.aclose()

    async def aclose(self) -> None:
        self.is_closed = True

    def become_the_slots(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """An engine whose settings have a journal opens these."""

        async def open_slots(state_dir: Path, settings: JournalSettings) -> "FakeSlots":  # noqa: ARG001 - the port's
            return self

        monkeypatch.setattr(journals, "open_slots", open_slots)


class Watcher:
    """An observer that keeps what it is shown, in order."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.jobs: list[tuple[Job, Outcome]] = []
        self.parts: list[tuple[Part, ...]] = []

    def request_settled(self, record: RequestRecord) -> None:
        self.records.append(record)

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
        self.jobs.append((job, outcome))
        self.parts.append(tuple(parts))
