"""Processes that are killed: the command line, or an engine embedded in a program.

They are forked off a server process that has imported the package once, so that each costs a few hundredths of a
second; nothing of one is left in the next.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.crash.sabotage import Point, arm, put

_PRELOADED = ["sendengine.cli.commands", "sendengine.cli.main", "tests.crash.processes", "tests.crash.embedded"]
_LIMIT_S = 80.0  # a process that takes longer hangs: the test says so before the runner ends it
_DEATH_S = 20.0  # a killed process is gone by then
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)

OFTEN = {
    "sendengine.journal.database:_CHECKPOINT_MOST_BYTES": 150_000,
    "sendengine.journal.liveness:SLACK_BYTES": 2_000,
    "sendengine.journal.liveness:MOVED_BYTES": 500,
}
"""Bounds of a journal that are met in a run of seconds, too, so that a process may die there."""
SOON = {"sendengine.engine.users:PAUSE_S": 0.15, "sendengine.engine.users:UserSource.pause_s": 0.15}
"""Between two updates of a user: these servers ask for no pause, and a run is to be over in seconds."""

Body = Callable[..., None]


class Order(NamedTuple):
    """What a process does in ``folder``, and where it dies if nobody kills it before."""

    folder: Path
    body: Body
    arguments: tuple[object, ...] = ()
    points: tuple[Point, ...] = ()
    mischief: tuple[Body, ...] = ()


class Victim:
    """One process, for as long as ``async with`` lasts; what it says is in ``folder/said.txt``."""

    def __init__(self, order: Order) -> None:
        self._folder = order.folder
        self._process = _CONTEXT.Process(target=_carry_out, args=(order,))

    async def __aenter__(self) -> Self:
        self._process.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._join()
        self._process.close()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()

    def terminate(self) -> None:
        """SIGTERM."""
        self._process.terminate()

    async def end(self) -> int:
        """Wait until it has ended, and return its exit code; -9 where it was killed."""
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        loop.add_reader(self._process.sentinel, over.set)
        try:
            async with asyncio.timeout(_LIMIT_S):
                await over.wait()
        except TimeoutError:
            raise AssertionError(f"a process hangs; it said: {said(self._folder)}") from None
        finally:
            loop.remove_reader(self._process.sentinel)
        self._join()
        code = self._process.exitcode
        assert code is not None
        return code

    def _join(self) -> None:
        self._process.join(_DEATH_S)
        assert not self._process.is_alive(), f"process {self._process.pid} does not end"


async def run(order: Order) -> int:
    """Run a process to its end, and return its exit code."""
    async with Victim(order) as victim:
        return await victim.end()


def was_killed(code: int) -> bool:
    return code == -signal.SIGKILL


def command(*arguments: str) -> None:
    """The body of a process that is the command line."""
    from sendengine.cli.main import main  # noqa: PLC0415 - the mischief comes first

    sys.argv = ["sendengine", *arguments]
    main()


def said(folder: Path) -> str:
    """What all processes in a folder have written to their standard output and error."""
    path = folder / "said.txt"
    return path.read_text() if path.exists() else ""


def _carry_out(order: Order) -> None:
    os.chdir(order.folder)
    file = os.open("said.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, f"--- {order.body.__name__} {order.arguments} {order.points}\n".encode())
    os.dup2(file, 1)
    os.dup2(file, 2)
    for target, value in (OFTEN | SOON).items():
        put(target, value)
    for mischief in order.mischief:
        mischief()
    for point in order.points:
        arm(point)
    order.body(*order.arguments)
