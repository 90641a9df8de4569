"""An event loop whose clock jumps to the next timer instead of waiting for it.

Sockets and threads still work: while anything is under way on a thread, or from one of the loop's connections to
another, the clock stands still.
"""

import asyncio
import selectors
import socket
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

from sendengine.journal.writer import Writer
from tests.support.wires import CountedSocket, Wires

T = TypeVar("T")

START_S = 1_000.0


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: "VirtualLoop") -> None:
        super().__init__()
        self._loop = loop

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        self._loop.wires.is_stirred = True  # a connection begins
        return super().register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        self._loop.wires.is_stirred = True  # … or ends
        return super().unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None or self._loop.threads:
            return list(super().select(None if timeout is None else min(timeout, 0.001)))
        ready = super().select(0)
        if ready or timeout <= 0:
            return list(ready)
        if patience_s := self._loop.wires.patience_s:
            ready = super().select(patience_s)
            if ready:
                return list(ready)
            self._loop.wires.settled()
        self._loop.now_s += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """``time()`` is virtual; `advance` is not needed, since waiting advances it."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.threads = 0
        self.wires = Wires()
        super().__init__(_JumpingSelector(self))
        self.wires.settled()

    def time(self) -> float:
        return self.now_s

    def run_in_executor(  # type: ignore[override]
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> "asyncio.Future[T]":
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)
        future.add_done_callback(self._thread_done)
        return future

    async def shutdown_default_executor(self, *args: Any) -> None:
        self.threads += 1  # it has a timeout, from Python 3.12 on
        try:
            await super().shutdown_default_executor(*args)
        finally:
            self.threads -= 1

    def _make_socket_transport(self, sock: socket.socket, *args: Any, **options: Any) -> Any:
        return super()._make_socket_transport(CountedSocket(self.wires, sock), *args, **options)  # type: ignore[misc]

    def _make_ssl_transport(self, sock: socket.socket, *args: Any, **options: Any) -> Any:
        return super()._make_ssl_transport(CountedSocket(self.wires, sock), *args, **options)  # type: ignore[misc]

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
