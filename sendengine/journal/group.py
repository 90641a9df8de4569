"""Changes on their way to the disk together.

Some are *taken on* only once they are there, and somebody waits for that: a job, a request's seal. The others *let
go*: they record what has happened, and nobody waits. While the disk is full only the latter go.

Units: sizes are bytes; ``at`` is whole seconds since the epoch.
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from sendengine.errors import StorageError

Done: TypeAlias = Callable[[StorageError | None], None]
"""Told, on the loop, that a change is on disk, or why it never will be."""
ArchiveName: TypeAlias = tuple[int, str]
"""Kind and name of what is archived."""
Put: TypeAlias = tuple[bytes, Done | None, ArchiveName | None]
"""A record's frame, who waits for it, and what is archived with it; a plain tuple, because there are so many."""


class Archived(Struct, frozen=True, gc=False):
    """What is kept under a name: since when, and its bytes."""

    at: int
    payload: bytes


class Group:
    """Changes in the order in which they were made."""

    __slots__ = ("archived", "forgotten", "is_one", "puts", "removed", "replaced", "size_bytes", "waiters", "works")

    def __init__(self) -> None:
        self.puts: dict[int, Put] = {}
        self.replaced: list[int] = []  # those of the records that take another's place
        self.removed: list[int] = []
        self.archived: dict[ArchiveName, Archived] = {}
        self.forgotten: list[ArchiveName] = []
        self.works: list[Callable[[], None]] = []  # done on the thread before the group is written
        self.waiters: list[Done] = []
        self.size_bytes = 0
        self.is_one = False  # to be written as a whole, whatever becomes of the disk

    def __bool__(self) -> bool:
        return bool(self.puts or self.removed or self.archived or self.forgotten or self.works or self.waiters)

    def put(self, record: int, put: Put) -> None:
        """Add a record that may take the place of one of the same id, here or in the log."""
        if (earlier := self.puts.pop(record, None)) is not None:
            self.size_bytes -= len(earlier[0])
            if earlier[1] is not None:
                self.waiters.append(earlier[1])
        self.puts[record] = put
        self.replaced.append(record)
        self.size_bytes += len(put[0])

    def withdraw(self, record: int) -> bool:
        """Take out a record and what goes with it, as if it had never been added; False where it is not here."""
        put = self.puts.pop(record, None)
        if put is None:
            return False
        self.size_bytes -= len(put[0])
        if put[2] is not None:
            self.archived.pop(put[2], None)
        return True

    def forget(self, name: ArchiveName) -> None:
        """Take something out of the archive."""
        self.archived.pop(name, None)
        self.forgotten.append(name)

    def extend(self, later: "Group") -> None:
        """Add the changes of a later group after this one's."""
        for record, put in later.puts.items():
            self.put(record, put)
        self.removed += later.removed
        for name in later.forgotten:
            self.forget(name)
        self.archived |= later.archived
        self.works += later.works
        self.waiters += later.waiters
        self.is_one |= later.is_one

    def cut(self, size_bytes: int) -> "Group":
        """Leave at least one record, and further ones up to this size; return a group of the rest, to come after it.

        What nobody waits for stays here as a whole: what is removed together with it is gone when this is on disk.
        """
        rest, kept_bytes = Group(), 0
        for record, put in list(self.puts.items()):
            if put[1] is None:
                continue
            kept_bytes += len(put[0])
            if kept_bytes <= size_bytes or kept_bytes == len(put[0]):
                continue
            entry = None if put[2] is None else self.archived.get(put[2])
            self.withdraw(record)
            rest.put(record, put)
            if put[2] is not None and entry is not None:
                rest.archived[put[2]] = entry
        if not rest.puts:  # whoever waits for all of it waits for this
            return rest
        self.replaced = [record for record in self.replaced if record in self.puts]  # the others still stand there
        rest.removed = [record for record in self.removed if record in rest.puts]
        self.removed = [record for record in self.removed if record not in rest.puts]
        rest.waiters, self.waiters = self.waiters, []
        return rest

    def split(self) -> tuple["Group", "Group"]:
        """Divide it into what lets go and what is taken on; what was both need not be written at all.

        One that is to be written as a whole is taken on as a whole.
        """
        letting, taking = Group(), Group()
        if self.is_one:
            return letting, self
        gone = set(self.removed)
        taking.waiters = self.waiters
        for record, put in self.puts.items():
            _, done, name = put
            if done is None:
                letting.put(record, put)
            elif record in gone:
                gone.discard(record)
                taking.waiters.append(done)
                if name is not None:
                    self.archived.pop(name, None)
            else:
                taking.put(record, put)
                if name is not None:
                    taking.archived[name] = self.archived.pop(name)
        letting.removed = [record for record in self.removed if record in gone]
        letting.archived, letting.forgotten, letting.works = self.archived, self.forgotten, self.works
        return letting, taking

    def everybody(self) -> list[Done]:
        """Return everybody who waits for it, in order."""
        return [done for _, done, _ in self.puts.values() if done is not None] + self.waiters


def put_before(group: Group, *, lazy: Group, urgent: Group) -> tuple[Group, Group]:
    """Put a group that was not written before those that gathered meanwhile, in two parts: letting go, taking on."""
    letting, taking = group.split()
    letting.extend(lazy)
    taking.extend(urgent)
    return letting, taking
