"""Dials: addresses and sockets, which are tried, in which order, for how long."""

import asyncio
import socket
from typing import Any

import pytest

from sendengine.errors import NotSentError
from sendengine.transport.direct.addresses import Address, Addresses
from sendengine.transport.direct.dialing import Dialer, _first
from sendengine.transport.direct.wheel import Wheel
from tests.transport.conftest import on_asyncio
from tests.transport.naming import V4, V6, Names, found, order
from tests.transport.scripted import jump, turns, until

# Attempts


class FakeTransport(asyncio.Transport):
    is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True


Opened = tuple[asyncio.Transport, asyncio.Protocol]


class Line:
    """What becomes of an attempt at each address; ``True`` succeeds, ``None`` never ends."""

    def __init__(self, **ends: bool | None) -> None:
        self.ends = ends
        self.tried: list[str] = []
        self.opened: dict[str, FakeTransport] = {}
        self.overtaken: list[Address] = []
        self.release = asyncio.Event()  # for what never ends

    async def attempt(self, address: Address) -> Opened:
        name = str(address.where[0])
        self.tried.append(name)
        if self.ends[name] is None:
            await self.release.wait()
        if self.ends[name] is False:
            raise ConnectionRefusedError(111, f"refused by {name}")
        self.opened[name] = FakeTransport()
        return self.opened[name], asyncio.Protocol()

    async def first(self) -> asyncio.Transport:
        addresses = [Address(V4, 6, (name, 80)) for name in self.ends]
        opened = await _first(self.attempt, addresses, loop=asyncio.get_running_loop(), overtaken=self.overtaken.append)
        return opened[0]


@on_asyncio
async def test_an_address_that_refuses_is_followed_by_the_next_at_once() -> None:
    line = Line(a=False, b=False, c=True, d=True)
    assert await line.first() is line.opened["c"]
    assert line.tried == ["a", "b", "c"]
    assert line.overtaken == []


@on_asyncio
async def test_an_address_that_does_not_answer_is_followed_by_the_next_after_half_a_second() -> None:
    line = Line(a=None, b=None, c=True)
    racing = asyncio.create_task(line.first())
    for tried in (["a"], ["a", "b"]):
        await turns()
        assert line.tried == tried
        jump(0.51)
        await asyncio.sleep(0.001)  # the loop's timer
    assert await racing is line.opened["c"]
    assert order(line.overtaken) == ["a", "b"]
    await turns()
    assert len(asyncio.all_tasks()) == 1, "those that lost are over"


@on_asyncio
async def test_one_that_was_slow_may_still_be_the_first() -> None:
    line = Line(a=None, b=None)
    racing = asyncio.create_task(line.first())
    await turns()
    jump(0.51)
    await asyncio.sleep(0.001)  # the loop's timer
    assert line.tried == ["a", "b"]
    line.release.set()
    won = await racing
    await turns()
    assert [one.is_aborted for one in line.opened.values()] == [one is not won for one in line.opened.values()]
    assert len(line.opened) == 2, "and the other, which was ready in the same step, is closed"
    assert line.overtaken == []


@on_asyncio
async def test_where_none_answers_the_last_error_is_told() -> None:
    with pytest.raises(ConnectionRefusedError, match="refused by b"):
        await Line(a=False, b=False).first()
    with pytest.raises(ConnectionRefusedError, match="refused by a"):
        await Line(a=False).first()


@on_asyncio
async def test_no_address_at_all_is_an_error() -> None:
    with pytest.raises(OSError, match="no addresses"):
        await Line().first()


@on_asyncio
async def test_cancelling_a_race_leaves_no_task() -> None:
    racing = asyncio.create_task(Line(a=None, b=None).first())
    await turns()
    racing.cancel()
    await turns()
    assert racing.cancelled()
    assert len(asyncio.all_tasks()) == 1


# Dials


def dialer(host: str, port: int, **options: Any) -> Dialer[asyncio.Protocol]:
    return Dialer(asyncio.Protocol, host=host, port=port, tls=None, wheel=Wheel(), **{"timeout_s": 10.0} | options)


async def test_a_dial_falls_back_to_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = taken.getsockname()[1]

    async def both(_: Addresses) -> list[Address]:
        return [Address(V4, 6, ("127.0.0.1", closed)), Address(V4, 6, ("127.0.0.1", port))]

    monkeypatch.setattr(Addresses, "next", both)
    lost = asyncio.Event()

    class Client(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = transport

        def connection_lost(self, _: Exception | None) -> None:
            lost.set()

    dialing_ = Dialer(Client, host="host.example", port=1, tls=None, timeout_s=10.0, wheel=Wheel())
    client = await dialing_.dial()
    assert client.transport.get_extra_info("peername")[1] == port
    client.transport.close()
    await lost.wait()
    server.close()
    await dialing_.aclose()


@on_asyncio
async def test_an_address_that_was_overtaken_is_not_the_first_of_the_next_dial(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    async def half(_: object, address: Address) -> Opened:
        tried.append(address.where[0])
        if address.family == V6:
            await asyncio.get_running_loop().create_future()
        return FakeTransport(), asyncio.Protocol()

    monkeypatch.setattr(Dialer, "_attempt", half)
    Names(monkeypatch, found("::1", "1.1.1.1"))
    one = dialer("host.example", 80)
    first = asyncio.create_task(one.dial())
    await until(lambda: tried == ["::1"])
    jump(0.51)
    await first
    await one.dial()
    assert tried == ["::1", "1.1.1.1", "1.1.1.1"]
    await one.aclose()


async def hanging(_: object, __: Address) -> Opened:
    await asyncio.get_running_loop().create_future()
    raise AssertionError


async def refusing(_: object, address: Address) -> Opened:
    raise ConnectionRefusedError(111, f"refused by {address.where[0]}")


@on_asyncio
async def test_a_dial_that_takes_too_long_was_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dialer, "_attempt", hanging)
    under_way = asyncio.create_task(dialer("127.0.0.1", 80, timeout_s=5.0).dial())
    await turns()
    jump(4.9)
    await asyncio.sleep(0.001)  # the loop's timers
    assert not under_way.done()
    jump(0.2)
    with pytest.raises(NotSentError, match="not open within 5 s"):
        await under_way


@on_asyncio
async def test_a_dial_that_fails_looks_the_name_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dialer, "_attempt", refusing)
    names = Names(monkeypatch, found("1.1.1.1"))
    one = dialer("host.example", 80)
    for count in (1, 2):
        with pytest.raises(NotSentError, match=r"refused by 1\.1\.1\.1"):
            await one.dial()
        assert names.count == count
    await one.aclose()


@on_asyncio
async def test_a_dial_that_is_cancelled_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dialer, "_attempt", hanging)
    under_way = asyncio.create_task(dialer("127.0.0.1", 80).dial())
    await turns()
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
