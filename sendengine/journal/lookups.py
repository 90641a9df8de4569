"""Looks names up in a store's archive, all that gathered meanwhile with one statement.

Cancelling whoever waits costs the others nothing.
"""

import asyncio

from sendengine.errors import StorageError
from sendengine.journal.database import Database
from sendengine.journal.writer import Writer


class Lookups:
    """Names of one kind that are to be looked up."""

    __slots__ = ("_database", "_kind", "_next", "_under_way", "_writer")

    def __init__(self, kind: int, *, database: Database, writer: Writer) -> None:
        self._kind = kind
        self._database = database
        self._writer = writer
        self._next: dict[str, list[asyncio.Future[bytes | None]]] = {}
        self._under_way: dict[str, list[asyncio.Future[bytes | None]]] = {}

    async def find(self, name: str) -> bytes | None:
        """Return what is archived under a name, or None. Raises StorageError."""
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._next.setdefault(name, []).append(answer)
        if not self._under_way:
            self._start()
        return await answer

    def _start(self) -> None:
        if not self._next:
            return
        self._under_way, self._next = self._next, {}
        names = list(self._under_way)
        self._writer.start(lambda: self._database.find(self._kind, names), done=self._found, failed=self._failed)

    def _found(self, found: dict[str, bytes]) -> None:
        for name, answers in self._under_way.items():
            for answer in answers:
                if not answer.done():
                    answer.set_result(found.get(name))
        self._under_way = {}
        self._start()

    def _failed(self, error: Exception) -> None:
        told = error if isinstance(error, StorageError) else StorageError(f"the store cannot be read: {error!r}")
        for answer in (each for answers in self._under_way.values() for each in answers):
            if not answer.done():
                answer.set_exception(StorageError(*told.args))
        self._under_way = {}
        self._start()
