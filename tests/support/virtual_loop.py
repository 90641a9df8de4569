"""An event loop whose clock jumps to the next timer instead of waiting for it.

Sockets and threads still work: while anything is under way on a thread, the clock stands still.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from sendengine.journal.writer import Writer

T = TypeVar("T")

START_S = 1_000.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.threads:
            return list(super().select(None if timeout is None else min(timeout, 0.001)))
        ready = super().select(0)
        if not ready and timeout > 0:
            self._loop.now_s += timeout
        return list(ready)


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` is virtual; `advance` is not needed, since waiting advances it."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.threads = 0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    def _thread_done(self, _: "asyncio.Future[T]") -> None:
        self.threads -= 1


def _started(
    writer: Writer, work: Callable[[], T], *, done: Callable[[T], None], failed: Callable[[Exception], None]
) -> None:
    """Let the clock stand still while a store's thread is at work."""
    loop = writer._loop
    if not isinstance(loop, VirtualLoop):
        _start(writer, work, done=done, failed=failed)
        return

    def landed(call: Callable[[Any], None]) -> Callable[[Any], None]:
        def told(result: object) -> None:
            loop.threads -= 1
            call(result)

        return told

    loop.threads += 1
    _start(writer, work, done=landed(done), failed=landed(failed))


_start = Writer.start
Writer.start = _started  # type: ignore[method-assign,assignment]


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a virtual clock; nothing waits, whatever it sleeps."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
