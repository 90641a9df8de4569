"""A mock server in a process of its own, so that it has a core of its own and its pauses are not the client's.

The child prints where it listens, serves until its standard input closes (so it never outlives its parent), and prints
its summary. It runs in a session of its own: Ctrl-C in the terminal is for the client.
"""

import asyncio
import sys
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec
import orjson

from sendengine.mockserver.client import LINE_BYTES, MockClient
from sendengine.mockserver.config import MockConfig
from sendengine.mockserver.ledger import Summary

_END_S: Final = 60.0  # for the summary of millions of recipients; a child that takes longer is killed


class MockProcess(MockClient):
    """A mock server in a child process, for as long as ``async with`` lasts.

    Raises OSError where it cannot start, and RuntimeError, with what it said, where it ended at once. ``certfile``
    and ``keyfile`` make it speak TLS. On leaving, ``last_summary`` is what the child printed at its end; None where it
    had to be killed, because it did not come to its end within a minute.
    """

    def __init__(
        self, config: MockConfig | None = None, *, certfile: Path | None = None, keyfile: Path | None = None
    ) -> None:
        super().__init__("", certfile=certfile)
        self._config = config or MockConfig()
        self._keyfile = keyfile
        self.last_summary: Summary | None = None

    async def __aenter__(self) -> Self:
        arguments = ["-m", "sendengine.mockserver", "--port", "0", "--config-json", "-"]
        if self._certfile is not None:
            arguments += ["--certfile", str(self._certfile), "--keyfile", str(self._keyfile or self._certfile)]
        pipe = asyncio.subprocess.PIPE
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=pipe, stdout=pipe, limit=LINE_BYTES, start_new_session=True
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
