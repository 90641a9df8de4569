"""What a lane has learned of its messages: which were accepted, so that a refusal is not their fault, and which are.

Units: seconds on the running loop's clock.
"""

from collections import OrderedDict
from typing import Final

from sendengine.core.drafts import PackKey
from sendengine.core.requests import NotificationRequest, Request
from sendengine.core.verdicts import Refused

Subject = tuple[bytes, str | None, str, str]
"""What a refusal of a message may depend on: its content, channel, kind of target and alias label."""

_REMEMBERED: Final = 1000  # messages of either kind
_FAULT_KEPT_S: Final = 60.0  # a message at fault is refused unsent for so long; then one tries whether it was mended


class Messages:
    """One lane's; of each kind those are known that were met last. ``has_faulty`` spares asking about each request."""

    __slots__ = ("_accepted", "_faulty", "has_faulty")

    def __init__(self) -> None:
        self.has_faulty = False  # any, so far
        self._accepted: OrderedDict[Subject, None] = OrderedDict()
        self._faulty: OrderedDict[Subject, tuple[float, Refused]] = OrderedDict()

    def accept(self, subject: Subject) -> None:
        """A request with this message was accepted."""
        accepted = self._accepted
        accepted[subject] = None
        accepted.move_to_end(subject)
        if len(accepted) > _REMEMBERED:
            accepted.popitem(last=False)

    def is_good(self, subject: Subject) -> bool:
        """Whether the message was accepted before."""
        return subject in self._accepted

    def blame(self, subject: Subject, verdict: Refused, *, now_s: float) -> None:
        """The message was refused, whomever it was for."""
        self.has_faulty = True
        faulty = self._faulty
        faulty[subject] = now_s + _FAULT_KEPT_S, verdict
        faulty.move_to_end(subject)
        if len(faulty) > _REMEMBERED:
            faulty.popitem(last=False)

    def fault(self, subject: Subject, *, now_s: float) -> Refused | None:
        """How the message was refused a moment ago; None where it may be sent."""
        until_s, verdict = self._faulty.get(subject, (now_s, None))
        return verdict if now_s < until_s else None


def subject_of(request: Request) -> Subject:
    """The message of a notification's request."""
    if not isinstance(request, NotificationRequest):
        raise TypeError(f"{type(request).__name__} has no message")
    return request.content, request.channel, request.target.kind, request.target.label


def subject_of_group(group: PackKey) -> Subject:
    """The message that jobs which may share a request have in common."""
    return group.content, group.channel, group.kind, group.label
