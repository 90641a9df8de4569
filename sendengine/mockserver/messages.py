"""The log of messages that took effect, and the audit that finds what was delivered twice.

Units: ``at_s`` is seconds since the server started or was reset.

Method: the log only grows, and everything else is worked out when it is asked for. A message keeps its recipients as
one string of bytes, so a recipient costs the length of its id and a byte; counting ten million of them takes seconds,
in passes that hold two million each.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec import Struct

_SEPARATOR: Final = "\n"
_PASS: Final = 2_000_000  # recipients counted at once: about 300 MB
_SAMPLE: Final = 10
_PLACE_DIGITS: Final = 12
_HEXADECIMAL: Final = frozenset("0123456789abcdef")


class Message(Struct, frozen=True, gc=False):
    """One notification that took effect. ``kind`` is an alias label, ``subscription_id``, ``email``, … or ``segments``.

    ``content`` is a checksum of app, channel, kind and everything in the body but recipients, key and ttl.
    ``recipients`` are the packed ids of those it was delivered to (`recipients` unpacks them); ``count``
    says how many, segments included.
    """

    app: str
    channel: str
    kind: str
    key: int | None
    content: int
    count: int
    recipients: bytes | tuple[str, ...]
    at_s: float


class Doubled(Struct, frozen=True):
    """Recipients that got the same content more than once: how many deliveries too many, and some of them."""

    effects: int = 0
    sample: tuple[str, ...] = ()


class MessageLog:
    """Messages in the order in which they took effect; a message's id tells its place."""

    __slots__ = ("_messages", "_prefix")

    def __init__(self, *, generation: int) -> None:
        self._messages: list[Message] = []
        self._prefix = f"5e4de491-{generation & 0xFFFF:04x}-4000-8000-"

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages)

    def __getitem__(self, place: int) -> Message:
        return self._messages[place]

    def add(self, message: Message) -> int:
        """Append a message, and return its place."""
        self._messages.append(message)
        return len(self._messages) - 1

    def message_id(self, place: int) -> str:
        """Return the UUID under which the message at ``place`` was answered."""
        return f"{self._prefix}{place:0{_PLACE_DIGITS}x}"

    def find(self, message_id: str) -> Message | None:
        """Return the message of that id, or None."""
        digits = message_id.removeprefix(self._prefix)
        if len(digits) != _PLACE_DIGITS or not set(digits) <= _HEXADECIMAL:
            return None
        place = int(digits, 16)
        return self._messages[place] if place < len(self._messages) else None

    def deliveries(self, app: str | None = None) -> Counter[str]:
        """Count the deliveries of each recipient, as ``kind:id``. Holds all of them in memory."""
        counts: Counter[str] = Counter()
        for message in self._messages:
            if app in {None, message.app}:
                counts.update([f"{message.kind}:{recipient}" for recipient in recipients(message)])
        return counts

    def doubled(self) -> Doubled:
        """Find recipients to whom the same content was delivered more than once."""
        effects = 0
        sample: list[str] = []
        for group in self._repeated_contents():
            passes = sum(message.count for message in group) // _PASS + 1
            for number in range(passes):
                counts = _count(group, number, passes)
                too_many = counts.total() - len(counts)
                effects += too_many
                if too_many and len(sample) < _SAMPLE:
                    sample += [f"{group[0].kind}:{name}" for name, count in counts.most_common(_SAMPLE) if count > 1]
        return Doubled(effects, tuple(sample[:_SAMPLE]))

    def _repeated_contents(self) -> list[list[Message]]:
        uses = Counter([message.content for message in self._messages])
        groups: dict[int, list[Message]] = {content: [] for content, count in uses.items() if count > 1}
        for message in self._messages:
            if message.content in groups:
                groups[message.content].append(message)
        return list(groups.values())


def pack(ids: Sequence[str]) -> bytes | tuple[str, ...]:
    """Pack ids as bytes; nobody, and ids that hold the separator, stay as they are."""
    joined = _SEPARATOR.join(ids)
    if joined.count(_SEPARATOR) != len(ids) - 1:
        return tuple(ids)
    return joined.encode("utf-8", "surrogatepass")


def recipients(message: Message) -> Sequence[str]:
    """Unpack the recipients of a message; nobody for a message to segments."""
    packed = message.recipients
    if isinstance(packed, tuple):
        return packed
    return packed.decode("utf-8", "surrogatepass").split(_SEPARATOR)


def _count(group: Sequence[Message], number: int, passes: int) -> Counter[str]:
    """Count one pass's part of a group's recipients."""
    counts: Counter[str] = Counter()
    for message in group:
        ids = recipients(message)
        counts.update(ids if passes == 1 else [name for name in ids if hash(name) % passes == number])
    return counts
