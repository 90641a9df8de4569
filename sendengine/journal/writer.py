"""One thread that does a store's blocking work, a piece after another, and tells the event loop about each.

A thread of its own, because SQLite's connection belongs to one, and because an executor costs more a piece. It ends
with `Writer.aclose`; a process that ends before does not wait for it.
"""

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import TypeVar

from sendengine.errors import StorageError

_Result = TypeVar("_Result")
_Piece = Callable[[], Callable[[], object]]


class Writer:
    """A thread for pieces of work, in the order in which they were handed over."""

    __slots__ = ("_ended", "_is_ending", "_loop", "_pieces", "_thread")

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: SimpleQueue[_Piece | None] = SimpleQueue()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_ending = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def start(
        self, work: Callable[[], _Result], *, done: Callable[[_Result], None], failed: Callable[[Exception], None]
    ) -> None:
        """Do ``work`` on the thread; then call ``done`` with what it returns, or ``failed``, on the loop.

        Once the thread has been told to end, ``failed`` is called with a StorageError, and ``work`` is not done.
        """
        if self._is_ending:
            self._loop.call_soon(failed, StorageError(f"{self._thread.name} is closed"))
            return

        def piece() -> Callable[[], object]:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - not caught here but carried to the loop, whatever it is
                carried = error
                return lambda: failed(carried)
            return lambda: done(result)

        self._pieces.put(piece)

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do ``work`` on the thread and return what it returns. Cancelling it lets the work go on."""
        answer: asyncio.Future[_Result] = self._loop.create_future()

        def done(result: _Result) -> None:
            if not answer.done():
                answer.set_result(result)

        def failed(error: Exception) -> None:
            if not answer.done():
                answer.set_exception(error)

        self.start(work, done=done, failed=failed)
        return await answer

    async def aclose(self) -> None:
        """End the thread once it has done what it was given; waiting again is allowed."""
        if not self._is_ending:
            self._is_ending = True
            self._pieces.put(None)
        await asyncio.shield(self._ended)
        self._thread.join()

    def _run(self) -> None:
        while (piece := self._pieces.get()) is not None:
            if not self._tell(piece()):
                return
        self._tell(self._end)

    def _tell(self, news: Callable[[], object]) -> bool:
        """Call on the loop; False where that is closed: nobody waits for anything any more."""
        try:
            self._loop.call_soon_threadsafe(news)
        except RuntimeError:
            return False
        return True

    def _end(self) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
