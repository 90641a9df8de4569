"""The clock that all these tests go by: it stands still while anything is on its way, and jumps over all the rest."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.engines import now_s
from tests.support.virtual_loop import START_S, VirtualLoop

MUCH = 3_000_000  # bytes: more than the buffers of a connection hold
TLS = Path(__file__).parents[1] / "mockserver" / "loopback.pem"


@asynccontextmanager
async def connected(
    *, server_tls: ssl.SSLContext | None = None, client_tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, asyncio.StreamReader, asyncio.StreamWriter]]:
    """Two ends of a connection, the client's first."""
    ends: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda *end: ends.put_nowait(end), "127.0.0.1", 0, ssl=server_tls)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client_tls)
    others_reader, others_writer = await ends.get()
    yield reader, writer, others_reader, others_writer
    for end in (writer, others_writer):
        end.transport.abort()
    server.close()
    await asyncio.sleep(0)


def reading_of(writer: asyncio.StreamWriter) -> asyncio.ReadTransport:
    """Return the end's other half, which streams hide."""
    assert isinstance(writer.transport, asyncio.Transport)
    return writer.transport


@pytest.fixture
async def ticking() -> AsyncIterator[None]:
    """Somebody who always waits for something else, for whose sake the clock might jump."""

    async def tick() -> None:
        while True:  # noqa: ASYNC110 - nobody is waited for
            await asyncio.sleep(0.001)

    task = asyncio.create_task(tick())
    yield
    task.cancel()


async def test_the_clock_jumps_to_what_comes_next() -> None:
    await asyncio.sleep(1_000_000)
    assert now_s() == START_S + 1_000_000


@pytest.mark.usefixtures("ticking")
async def test_what_goes_from_one_end_of_a_connection_to_the_other_arrives_at_once() -> None:
    async with connected() as (reader, writer, others_reader, others_writer):
        for _ in range(200):
            began_s = now_s()
            writer.write(b"x" * 100_000)
            await others_reader.readexactly(100_000)
            others_writer.write(b"y")
            assert await reader.readexactly(1) == b"y"
            assert now_s() == began_s
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("ticking")
async def test_what_is_more_than_the_buffers_hold_arrives_at_once_too() -> None:
    async with connected() as (_, writer, others_reader, _):
        await asyncio.sleep(1)
        began_s = now_s()
        writer.write(b"x" * MUCH)
        await others_reader.readexactly(MUCH)
        assert now_s() == began_s


@pytest.mark.usefixtures("ticking")
async def test_over_tls_too() -> None:
    server_tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_tls.load_cert_chain(TLS)
    client_tls = ssl.create_default_context(cafile=str(TLS))
    async with connected(server_tls=server_tls, client_tls=client_tls) as (_, writer, others_reader, _):
        for _ in range(20):
            began_s = now_s()
            writer.write(b"x" * 200_000)
            await others_reader.readexactly(200_000)
            assert now_s() == began_s
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("ticking")
async def test_time_passes_while_nobody_reads_what_has_arrived() -> None:
    async with connected() as (_, writer, others_reader, others_writer):
        reading = reading_of(others_writer)
        reading.pause_reading()
        writer.write(b"x" * MUCH)
        await asyncio.sleep(3)
        reading.resume_reading()
        began_s = now_s()
        await others_reader.readexactly(MUCH)
        assert now_s() == began_s


@pytest.mark.usefixtures("ticking")
async def test_time_passes_when_what_was_on_its_way_is_lost() -> None:
    async with connected() as (_, writer, _, others_writer):
        reading = reading_of(others_writer)
        reading.pause_reading()
        writer.write(b"x" * 1000)
        await asyncio.sleep(1)
        others_writer.transport.abort()
        await asyncio.sleep(3)


async def test_looking_up_a_name_takes_no_time() -> None:
    began_s = now_s()
    found = await asyncio.get_running_loop().getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    assert found
    assert now_s() == began_s


async def test_these_tests_run_on_it() -> None:
    assert isinstance(asyncio.get_running_loop(), VirtualLoop)
