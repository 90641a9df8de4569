"""A mock server in a process of its own, so that it has a core of its own and its pauses are not the client's.

The child prints where it listens, serves until its standard input closes (so it never outlives its parent), and prints
its summary. It runs in a session of its own: Ctrl-C in the terminal is for the client.
"""

import asyncio
import ssl as tls
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit

import msgspec
import orjson

from sendengine.mockserver.config import MockConfig
from sendengine.mockserver.ledger import Summary

_END_S: Final = 60.0  # for the summary of millions of recipients; a child that takes longer is killed
_LINE_BYTES: Final = 64 * 1024 * 1024  # a summary is one line, and a thousand apps make it long


class MockProcess:
    """A mock server in a child process, for as long as ``async with`` lasts.

    Raises OSError where it cannot start, and RuntimeError, with what it said, where it ended at once. ``certfile``
    and ``keyfile`` make it speak TLS. On leaving, ``last_summary`` is what the child printed at its end; None where it
    had to be killed, because it did not come to its end within a minute.
    """

    def __init__(
        self, config: MockConfig | None = None, *, certfile: Path | None = None, keyfile: Path | None = None
    ) -> None:
        self._config = config or MockConfig()
        self._certfile = certfile
        self._keyfile = keyfile
        self.base_url = ""
        self.last_summary: Summary | None = None

    async def __aenter__(self) -> Self:
        arguments = ["-m", "sendengine.mockserver", "--port", "0", "--config-json", "-"]
        if self._certfile is not None:
            arguments += ["--certfile", str(self._certfile), "--keyfile", str(self._keyfile or self._certfile)]
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, limit=_LINE_BYTES, start_new_session=True
        )
        try:
            self.base_url = await self._begin()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        line = await self._end()
        if line:
            self.last_summary = msgspec.json.decode(line, type=Summary)

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
        reader, writer = await asyncio.open_connection(where.hostname, where.port, ssl=context, limit=_LINE_BYTES)
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

    async def _begin(self) -> str:
        stdin, stdout = self._child.stdin, self._child.stdout
        if stdin is None or stdout is None:
            raise RuntimeError("the mock server's process has no pipes")
        stdin.write(msgspec.json.encode(self._config) + b"\n")
        await stdin.drain()
        line = await stdout.readline()
        if not line:
            raise RuntimeError(f"the mock server ended at once, with exit code {await self._child.wait()}")
        return str(orjson.loads(line)["base_url"])

    async def _end(self) -> bytes:
        if self._child.stdin is not None:
            self._child.stdin.close()
        try:
            output, _ = await asyncio.wait_for(self._child.communicate(), _END_S)
        except TimeoutError:
            self._child.kill()
            output, _ = await self._child.communicate()
        return output or b""
