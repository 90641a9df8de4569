"""The journal of a campaign: what is on disk before what, and what a later process knows."""

import asyncio
from pathlib import Path
from typing import Any

from sendengine import Accepted, CreateNotification, GaveUp, external_id
from sendengine.core.wire import WireRequest
from sendengine.journal.campaign_ledger import MOST_BOUNDARIES, NOTHING_STORED, CampaignLedger
from sendengine.journal.store import Store
from sendengine.ports import Part, Portion, Seal
from tests.support.engines import within
from tests.support.stores import Disk
from tests.support.virtual_loop import run_virtually

KEYS = [f"8250eaf6-1a58-489e-b136-7c74a864b4{n:02}" for n in range(50)]
OK = Accepted()


def ids(first: int, end: int) -> tuple[str, ...]:
    return tuple(f"u{n}" for n in range(first, end))


def seal_of(first: int, end: int, *, only: tuple[str, ...] | None = None, key: str | None = None) -> Seal:
    members = ((first, ids(first, end) if only is None else only),)
    return Seal("shop/create_notification", key or KEYS[first], None, WireRequest("POST", "/n", b"{}"), members)


class Scene:
    """A ledger in a file; items of ten rows."""

    def __init__(self, path: Path) -> None:
        self.path = path / "journal.db"
        self.disk = Disk()

    async def open(self) -> CampaignLedger:
        store = await Store.open(self.path, connect=self.disk.connect)
        self.ledger = CampaignLedger(store, store.contents())
        await self.ledger.recover(when_failed=lambda _: None)
        return self.ledger

    def accept(self, first: int, end: int, *, is_boundary: bool = True) -> None:
        self.ledger.expect(first, end, is_boundary=is_boundary)
        job = CreateNotification(to=external_id(*ids(first, end)), channel="push", message={"contents": {"en": "Hi"}})
        told: list[Any] = []
        assert self.ledger.accept(job, app="shop", row=first, key=KEYS[first], done=told.append) == first
        assert told == []  # its id is known before it can settle

    def settle(self, first: int, end: int) -> None:
        self.ledger.settle([Portion(first, ids(first, end), OK, is_last=True)], request=NOTHING_STORED)


def test_nothing_goes_before_the_frontier_is_behind_it_on_disk(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        ledger = await scene.open()
        scene.accept(0, 10)
        assert ledger.must_seal(seal_of(0, 10))
        assert scene.disk.groups == []
        assert await within(ledger.seal(seal_of(0, 10))) == NOTHING_STORED
        assert len(scene.disk.groups) == 1
        scene.accept(10, 20)
        assert not ledger.must_seal(seal_of(10, 20))  # the frontier runs ahead
        await ledger.aclose()
        again = await scene.open()
        assert again.begun(0, 10) is not None
        found = again.begun(10, 20)
        assert found is not None
        assert (found.maybe_sent, found.parts, found.requests) == (True, (), ())
        assert again.begun(40, 50) is None  # far behind it: certainly not sent
        assert again.first_sent_at_s is not None
        await again.aclose()

    run_virtually(main())


def test_what_has_settled_is_known_and_reading_goes_on_behind_a_boundary(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        ledger = await scene.open()
        for first, is_boundary in ((0, True), (10, False), (20, True), (30, True)):
            scene.accept(first, first + 10, is_boundary=is_boundary)
        for first, restart in ((10, 0), (0, 10), (30, 10), (20, 40)):
            scene.settle(first, first + 10)
            assert ledger.restart == restart
        await ledger.aclose()
        again = await scene.open()
        assert (again.restart, again.is_settled(0, 40), again.is_fresh) == (40, True, False)
        again.expect(40, 50, is_boundary=True)
        assert not again.is_settled(40, 50)
        again.close(40)
        assert (again.is_settled(40, 50), again.restart) == (True, 50)
        await again.aclose()

    run_virtually(main())


def test_an_item_that_takes_long_keeps_no_more_than_some_thousand_boundaries_behind_it(tmp_path: Path) -> None:
    async def main() -> None:
        scene = Scene(tmp_path)
        ledger = await scene.open()
        count = 2 * MOST_BOUNDARIES
        for first in range(0, 10 * count, 10):
            ledger.expect(first, first + 10, is_boundary=True)
        assert len(ledger._boundaries) <= MOST_BOUNDARIES
        for first in range(10, 10 * count, 10):
            ledger.close(first)
        assert ledger.restart == 0
        ledger.close(0)
        assert ledger.restart == 10 * count
        await ledger.aclose()

    run_virtually(main())


def test_pieces_are_written_and_what_came_of_them_until_their_item_has_settled(tmp_path: Path) -> None:
    lost = GaveUp("reset", maybe_sent=True, not_sent=("u5",))

    async def main() -> None:
        scene = Scene(tmp_path)
        ledger = await scene.open()
        scene.accept(0, 10)
        assert ledger.must_seal(seal_of(0, 10))
        await within(ledger.seal(seal_of(0, 10)))
        assert ledger.must_seal(seal_of(0, 10, only=ids(0, 5), key=KEYS[1]))
        first = await within(ledger.seal(seal_of(0, 10, only=ids(0, 5), key=KEYS[1])))
        second = await within(ledger.seal(seal_of(0, 10, only=ids(5, 10), key=KEYS[2])))
        third = await within(ledger.seal(seal_of(0, 10, only=ids(5, 6), key=KEYS[3])))
        ledger.unseal(second)
        ledger.settle([Portion(0, ids(0, 5), OK, is_last=False)], request=first)
        await ledger.aclose()
        ledger = await scene.open()
        begun = ledger.begun(0, 10)
        assert begun is not None
        assert begun.parts == (Part(ids(0, 5), OK),)
        assert [request.seal.key for request in begun.requests] == [KEYS[3]]
        scene.accept(0, 10)
        ledger.settle([Portion(0, ids(5, 6), lost, is_last=False)], request=third)
        await ledger.aclose()
        ledger = await scene.open()
        begun = ledger.begun(0, 10)
        assert begun is not None
        assert begun.requests == ()  # it was given up: kept for a retry, not sent again by itself
        assert list(ledger.kept_requests()) == [KEYS[3]]
        scene.accept(0, 10)
        scene.settle(0, 10)
        await ledger.aclose()
        ledger = await scene.open()
        assert (ledger.is_settled(0, 10), list(ledger.kept_requests())) == (True, [KEYS[3]])
        await ledger.aclose()

    run_virtually(main())


def test_who_waits_for_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    async def main() -> str:
        scene = Scene(tmp_path)
        ledger = await scene.open()
        scene.accept(0, 10)
        scene.disk.is_broken = True
        assert ledger.must_seal(seal_of(0, 10))
        told = await asyncio.gather(ledger.seal(seal_of(0, 10)), return_exceptions=True)
        later = await asyncio.gather(ledger.seal(seal_of(0, 10)), return_exceptions=True)
        await ledger.aclose()
        assert str(told[0]) == str(later[0])
        return str(told[0])

    assert "disk I/O error" in run_virtually(main())
