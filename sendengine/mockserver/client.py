"""Asks a mock server that is running, in whatever process, for what stands under /__mock__/."""

import asyncio
import ssl as tls
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import orjson

from sendengine.mockserver.ledger import Summary

LINE_BYTES: Final = 64 * 1024 * 1024
"""A summary is one line, and a thousand apps make it long."""


class MockClient:
    """Asks the mock server at ``base_url``; ``certfile`` is what it proves itself with, where it speaks TLS."""

    def __init__(self, base_url: str, *, certfile: Path | None = None) -> None:
        self.base_url = base_url
        self._certfile = certfile

    async def summary(self, *, doubled: bool = True) -> Summary:
        """Ask for the summary; ``doubled=False`` leaves out the audit that takes long with millions of recipients."""
        return msgspec.json.decode(await self.ask("GET", f"ledger?doubled={int(doubled)}"), type=Summary)

    async def configure(self, **changes: object) -> None:
        """Change settings while it runs; values may be plain or settings. Raises ValueError where it refuses them."""
        await self.ask("POST", "config", orjson.dumps(msgspec.to_builtins(changes)))

    async def reset(self) -> None:
        """Begin anew, as `MockServer.reset` does."""
        await self.ask("POST", "reset")

    async def go_away(self, *, hard: bool = False) -> None:
        """End every connection, as `MockServer.go_away` does."""
        await self.ask("POST", f"goaway?hard={int(hard)}")

    async def stop_reading(self, *, for_s: float | None = None) -> None:
        """Read nothing more of the connections that are open, as `MockServer.stop_reading` has it."""
        await self.ask("POST", "stop_reading" if for_s is None else f"stop_reading?for_s={for_s}")

    async def read_on(self) -> None:
        """Read again."""
        await self.ask("POST", "read_on")

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        """Call an endpoint under /__mock__/ and return its JSON. Raises ValueError with the reason of a refusal."""
        where = urlsplit(self.base_url)
        context = tls.create_default_context(cafile=str(self._certfile)) if where.scheme == "https" else None
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=LINE_BYTES)
        try:
            head = f"{method} /__mock__/{path} HTTP/1.1\r\nHost: mock\r\nConnection: close\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            reply = await reader.read()
        finally:
            writer.close()
        status, _, rest = reply.partition(b"\r\n")
        content = rest.partition(b"\r\n\r\n")[2]
        if status.split()[1:2] != [b"200"]:
            raise ValueError(content.decode())
        return content
