"""Servers and connections that close with the test."""

import asyncio
import ssl as tls
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from sendengine.mockserver import MockConfig, MockServer
from tests.mockserver.h2_client import ConnectH2, H2Client, opened
from tests.mockserver.raw_client import Client, Connect, Start


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def start(stack: AsyncExitStack) -> Start:
    """Start a server with these settings; it ends with the test."""

    async def start(*, ssl: tls.SSLContext | None = None, **settings: object) -> MockServer:
        server = await stack.enter_async_context(MockServer(MockConfig(), ssl=ssl))
        if settings:
            server.configure(**settings)
            server.reset()
        return server

    return start


@pytest.fixture
async def connect(stack: AsyncExitStack) -> Connect:
    """Open a connection to a server; it closes with the test."""

    async def connect(server: MockServer, *, ssl: tls.SSLContext | None = None) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=ssl)

        async def close() -> None:
            writer.transport.abort()
            await asyncio.sleep(0)

        stack.push_async_callback(close)
        return Client(reader, writer)

    return connect


@pytest.fixture
async def connect_h2(stack: AsyncExitStack) -> ConnectH2:
    """Open an HTTP/2 connection to a server, not greeted yet; it closes with the test."""

    async def connect(server: MockServer, *, ssl: tls.SSLContext | None = None) -> H2Client:
        client = await opened(server, ssl=ssl)

        async def close() -> None:
            client.writer.transport.abort()
            await asyncio.sleep(0)

        stack.push_async_callback(close)
        return client

    return connect
