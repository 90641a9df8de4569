"""A tiny raw HTTP client: one connection, requests and replies as they are on the wire."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import orjson
from msgspec import Struct

from sendengine.mockserver import MockServer

APP = "8250eaf6-1a58-489e-b136-7c74a864b434"
KEY = "0b6b6ad4-4b1e-4b3a-9d3c-2a52a7a0a001"


class Answered(Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> object:
        return orjson.loads(self.body)


class Client:
    """One connection, kept alive."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answered:
        self.send(method, path, body, headers=headers)
        return await self.read()

    def send(self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else b"" if body is None else orjson.dumps(body)
        sent = {"Authorization": "Key k", "Content-Type": "application/json", "Content-Length": str(len(content))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in (sent | dict(headers or {})).items() if value)
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: mock\r\n{lines}\r\n".encode() + content)

    async def read(self) -> Answered:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        body = await self.reader.readexactly(int(headers["Content-Length"]))
        return Answered(int(head[0].split()[1]), headers, body)

    async def notify(self, *ids: str, **fields: object) -> Answered:
        """Create a notification; ``key`` and ``app`` are short for their fields, and a field may be anything."""
        body: dict[str, object] = {"app_id": fields.pop("app", APP), "contents": {"en": "Hi"}, "target_channel": "push"}
        if ids:
            body["include_aliases"] = {"external_id": list(ids)}
        if key := fields.pop("key", None):
            body["idempotency_key"] = key
        return await self.ask("POST", "/notifications", body | fields)

    async def update(self, user: str, body: object, *, app: str = APP, label: str = "external_id") -> Answered:
        return await self.ask("PATCH", f"/apps/{app}/users/by/{label}/{user}", body)


async def happened(condition: Callable[[], bool]) -> None:
    """Let the loop go on until something has happened."""
    while not condition():  # noqa: ASYNC110  # what is waited for is on the same loop, and has no event
        await asyncio.sleep(0)


Start = Callable[..., Awaitable[MockServer]]
Connect = Callable[..., Awaitable[Client]]
