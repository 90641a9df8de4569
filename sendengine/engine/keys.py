"""Callers' idempotency keys: what goes on the wire for them, and which job each has been used for.

The same key and body again joins the first receipt; another body raises KeyReusedError, because OneSignal would drop
it silently. The memory is this process's, and holds the last `REMEMBERED` settled keys; behind it stands the
journal's, where there is one, which holds 30 days.

Source: OneSignal's idempotency page: a key is a UUID, kept for 30 days; the first body under it is the one processed.
"""

import asyncio
import os
import random
import re
from collections import OrderedDict
from hashlib import blake2b
from typing import Final, Protocol
from uuid import UUID, uuid5

import orjson

from sendengine.core.jobs import CreateNotification, Job
from sendengine.core.outcomes import Outcome
from sendengine.engine.receipts import Receipt
from sendengine.errors import KeyReusedError
from sendengine.ports import KeyRecall

REMEMBERED: Final = 100_000

_chance: Final = random.Random()  # noqa: S311 - unique, not secret; a host that seeds `random` must not repeat our keys
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.seed)  # nor may two processes that were one

_VARIANT: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))  # of RFC 9562: the two top bits are 10

_UUID: Final = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
)  # `UUID` takes ten times as long


def new_key() -> str:
    """A random UUID (version 4) as text; `uuid.uuid4` asks the kernel each time, and takes six times as long."""
    digits = "%032x" % _chance.getrandbits(128)  # noqa: UP031 - an f-string takes a fifth longer
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"


def request_key(receipt: Receipt, *, key: str | None) -> str | None:
    """The key of a job's only request, where that follows from the job; ``key`` is the wire form of its caller's.

    It does where one recipient goes alone and no deadline makes the body depend on when it is sent.
    """
    job = receipt.job
    if not isinstance(job, CreateNotification) or len(job.to.ids) != 1 or receipt.deadline_s is not None:
        return None
    if key is None and job.pack is not False and (job.pack or job.urgency != "high"):
        return None
    return (key or new_key()) if job.to.is_listed else None


def wire_key(app_id: str, key: str) -> str:
    """The UUID that stands for a caller's key: itself where it is one, else derived from app and text."""
    if _UUID.fullmatch(key):
        return key
    try:
        return str(UUID(key))
    except ValueError:
        return str(uuid5(UUID(app_id), key))


def portion_key(key: str, ids: tuple[str, ...]) -> str:
    """The key of one request of a job that needs several: it follows from the job's key and the ids in it.

    So does that of a piece of its refused request: whoever sends the same job once more, from another process, is
    refused the same request and sends the same pieces, which OneSignal knows then.
    """
    text = "\n".join(ids)
    if text.count("\n") >= len(ids):  # within an id, too: others that read the same when joined have other keys
        text = repr(ids)
    return str(uuid5(UUID(key), blake2b(text.encode("utf-8", "surrogatepass")).hexdigest()))


def chance_of(key: str) -> float:
    """A number in [0, 1) that follows from a key: what is drawn with it comes out the same wherever that is sent."""
    return (int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) >> 11) / 2**53


def fingerprint(job: Job) -> bytes:
    """What must be equal for two jobs to count as the same under one key."""
    if isinstance(job, CreateNotification):
        what: object = ["n", job.channel, job.to.kind, job.to.label, job.to.ids, job.to.excluded]
        body: object = [job.message, [dict(rule) for rule in job.to.rules]]
    else:
        what, body = ["u", job.user.label, job.user.ids], [job.tags, job.properties, job.deltas]
    return blake2b(orjson.dumps([what, body], option=orjson.OPT_SORT_KEYS), digest_size=16).digest()


class Memory(Protocol):
    """Where callers' keys are remembered: a journal, or all of an engine's."""

    async def recall(self, key: str, *, app: str) -> KeyRecall | None:
        """Look a caller's key up. Raises StorageError."""
        ...


class KeyTable:
    """The keys of one app that callers have used."""

    __slots__ = ("_asked", "_held", "_settled", "_under_way")

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[bytes, Receipt]] = {}
        self._settled: OrderedDict[str, tuple[bytes, Outcome]] = OrderedDict()
        self._asked: dict[str, asyncio.Future[None]] = {}  # the journal is asked about it
        self._held: dict[str, asyncio.Future[None]] = {}  # its job is on the way to the disk

    def join(self, key: str, job: Job, *, fingerprint: bytes) -> Receipt | None:
        """The receipt of the job that used this key first; None where it is new. Raises KeyReusedError."""
        if (under_way := self._under_way.get(key)) is not None:
            _check_same(job, under_way[0], fingerprint)
            return under_way[1]
        if (settled := self._settled.get(key)) is not None:
            _check_same(job, settled[0], fingerprint)
            return Receipt.settled(job, settled[1])
        return None

    async def recall(self, key: str, journal: Memory, *, app: str, job: Job, fingerprint: bytes) -> None:
        """Bring to mind what the journals remember of a key that is new here; asked by one caller at a time.

        The job that used the key first is on disk afterwards, or was turned back. Raises StorageError, and
        KeyReusedError where a job with another body is under way elsewhere. Cancelling it lets the next caller ask.
        """
        is_asked = False
        while True:
            if (busy := self._asked.get(key) or self._held.get(key)) is not None:
                await asyncio.wait([busy])
            elif is_asked or key in self._under_way or key in self._settled:
                return
            else:
                known = await self._ask(key, journal, app=app)
                is_asked = True
                if known is not None and known.outcome is not None:
                    self._remember(key, known.fingerprint, known.outcome)
                elif known is not None:
                    _check_same(job, known.fingerprint, fingerprint)

    def hold(self, key: str) -> None:
        """The job of a key is on its way to the disk: who comes with the same key waits to see it there."""
        self._held[key] = asyncio.get_running_loop().create_future()

    def release(self, key: str) -> None:
        """The job of a key is on disk, or was turned back."""
        self._held.pop(key).set_result(None)

    def register(self, key: str, *, fingerprint: bytes, receipt: Receipt) -> None:
        """Remember a new key. What it was used for is kept whole only while it is under way.

        Of two jobs that earlier processes accepted under one key, the first is the one that others join.
        """
        self._under_way.setdefault(key, (fingerprint, receipt))

    def settle(self, key: str, receipt: Receipt) -> None:
        """The job of a key has settled: from now on only its outcome is kept."""
        known = self._under_way.get(key)
        if known is not None and known[1] is receipt and receipt.outcome is not None:
            del self._under_way[key]
            self._remember(key, known[0], receipt.outcome)

    def forget(self, key: str) -> None:
        """The job of a key was not taken after all."""
        self._under_way.pop(key, None)

    async def _ask(self, key: str, journal: Memory, *, app: str) -> KeyRecall | None:
        asked = self._asked[key] = asyncio.get_running_loop().create_future()
        try:
            return await journal.recall(key, app=app)
        finally:
            del self._asked[key]
            asked.set_result(None)

    def _remember(self, key: str, fingerprint: bytes, outcome: Outcome) -> None:
        self._settled[key] = (fingerprint, outcome)
        if len(self._settled) > REMEMBERED:
            self._settled.popitem(last=False)


def _check_same(job: Job, first: bytes, second: bytes) -> None:
    if first != second:
        raise KeyReusedError(
            f"idempotency key {job.idempotency_key!r} was used before with another body; OneSignal keeps the first "
            "and drops this one silently. Use a key of its own, or the same body"
        )
