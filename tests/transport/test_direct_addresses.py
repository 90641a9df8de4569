"""A host's addresses: which are tried, in which order, and what a resolver that fails changes."""

import asyncio
import socket

import pytest

from sendengine.transport.direct.addresses import Addresses
from tests.transport.conftest import on_asyncio
from tests.transport.naming import Found, Names, found, order
from tests.transport.scripted import jump, turns


@on_asyncio
async def test_families_take_turns_and_each_call_begins_with_another_address(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, found("::1", "::2", "1.1.1.1", "2.2.2.2", "3.3.3.3", "1.1.1.1"))
    addresses = Addresses("host.example", 80)
    assert [order(await addresses.next()) for _ in range(4)] == [
        ["::1", "1.1.1.1", "::2", "2.2.2.2", "3.3.3.3"],
        ["::2", "2.2.2.2", "::1", "3.3.3.3", "1.1.1.1"],
        ["::1", "3.3.3.3", "::2", "1.1.1.1", "2.2.2.2"],
        ["::2", "1.1.1.1", "::1", "2.2.2.2", "3.3.3.3"],
    ]


@on_asyncio
async def test_a_look_up_is_kept_for_300_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    await addresses.next()
    jump(299)
    await addresses.next()
    assert names.count == 1
    names.answer = found("9.9.9.9")
    jump(2)
    assert order(await addresses.next()) == ["9.9.9.9"]
    addresses.forget()
    await addresses.next()
    assert names.count == 3


@on_asyncio
async def test_all_who_ask_at_once_share_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    asking = [asyncio.create_task(addresses.next()) for _ in range(5)]
    await asyncio.sleep(0)
    asking[0].cancel()
    answers = await asyncio.gather(*asking[1:])
    assert [order(answer) for answer in answers] == [["1.1.1.1"]] * 4
    assert (names.count, asking[0].cancelled()) == (1, True)


@on_asyncio
async def test_a_name_that_is_unknown_is_named_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
    addresses = Addresses("nowhere.example", 80)
    for count in (1, 2):
        with pytest.raises(OSError, match=r"nowhere\.example"):
            await addresses.next()
        assert names.count == count
    await addresses.aclose()


AGAIN = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
EMPTY: Found = []


@on_asyncio
@pytest.mark.parametrize("answer", [AGAIN, EMPTY], ids=["fails", "empty"])
async def test_a_resolver_that_fails_leaves_the_addresses_that_it_named_last(
    monkeypatch: pytest.MonkeyPatch, answer: Found | OSError
) -> None:
    names = Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    await addresses.next()
    names.answer = answer
    jump(301)
    for _ in range(3):
        assert order(await addresses.next()) == ["1.1.1.1"]
    assert names.count == 2  # and is not asked again at once
    addresses.forget()  # but where they do not answer
    await addresses.next()
    assert names.count == 3
    names.answer = found("9.9.9.9")
    jump(31)
    assert order(await addresses.next()) == ["9.9.9.9"]


@on_asyncio
async def test_a_resolver_that_fails_for_a_day_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    await addresses.next()
    names.answer = AGAIN
    jump(86_401)
    for _ in range(2):
        with pytest.raises(OSError, match=r"host\.example"):
            await addresses.next()


@on_asyncio
async def test_a_name_that_is_no_more_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    await addresses.next()
    names.answer = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    jump(301)
    with pytest.raises(OSError, match=r"host\.example"):
        await addresses.next()


@on_asyncio
async def test_a_resolver_that_hangs_is_waited_for_once_where_addresses_are_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers: list[asyncio.Future[Found]] = []

    async def hang(*_: object, **__: object) -> Found:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    Names(monkeypatch, found("1.1.1.1"))
    addresses = Addresses("host.example", 80)
    await addresses.next()
    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", hang)
    jump(301)
    first = asyncio.create_task(addresses.next())
    await turns()
    assert not first.done()
    jump(2)
    second = asyncio.create_task(addresses.next())
    await turns()
    assert (order(first.result()), order(second.result())) == (["1.1.1.1"], ["1.1.1.1"])
    answers[0].set_result(found("9.9.9.9"))
    await turns()
    assert order(await addresses.next()) == ["9.9.9.9"]
    assert len(answers) == 1


@on_asyncio
async def test_of_thousands_of_addresses_a_few_are_tried_and_others_by_the_next_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Names(monkeypatch, found(*(f"10.0.{n // 250}.{n % 250}" for n in range(3000)), "::1"))
    addresses = Addresses("host.example", 80)
    tried = [order(await addresses.next()) for _ in range(64)]
    assert {len(each) for each in tried} == {16}
    assert all("::1" in each for each in tried)
    assert len({address for each in tried for address in each}) == 65


@on_asyncio
async def test_an_address_that_was_overtaken_goes_last_for_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names(monkeypatch, found("::1", "1.1.1.1", "2.2.2.2"))
    addresses = Addresses("host.example", 80)
    slow = (await addresses.next())[0]
    addresses.overtaken(slow)
    for expected in (["2.2.2.2", "1.1.1.1", "::1"], ["1.1.1.1", "2.2.2.2", "::1"]):
        assert order(await addresses.next()) == expected
    jump(61)
    assert order(await addresses.next())[0] == "::1"
    addresses.overtaken(slow)
    addresses.forget()
    assert order(await addresses.next())[-1] == "::1", "another look-up makes it no faster"
    names.answer = found("1.1.1.1")
    addresses.forget()
    for _ in range(2):
        assert order(await addresses.next()) == ["1.1.1.1"]
    assert names.count == 3


@on_asyncio
async def test_where_all_were_overtaken_their_order_is_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    Names(monkeypatch, found("::1", "1.1.1.1"))
    addresses = Addresses("host.example", 80)
    for each in await addresses.next():
        addresses.overtaken(each)
    assert order(await addresses.next()) == ["::1", "1.1.1.1"]


@on_asyncio
async def test_an_address_is_looked_up_at_once() -> None:
    addresses = Addresses("127.0.0.1", 8080)
    asking = asyncio.create_task(addresses.next())
    await turns()
    assert asking.done()
    assert (await asking)[0].where == ("127.0.0.1", 8080)
