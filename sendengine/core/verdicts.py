"""What one reply means for the request that it answers: the values between wire, controller and retry.

A verdict is about one attempt; an outcome (`sendengine.core.outcomes`) is about a job.
"""

from enum import Enum

from msgspec import Struct


class Took(Struct, frozen=True, gc=False):
    """OneSignal took the request. ``unsubscribed`` are the ids that the reply named, each once."""

    message_id: str = ""
    unsubscribed: tuple[str, ...] = ()
    replayed: bool = False


class NobodyReached(Struct, frozen=True, gc=False):
    """200 with an empty id: nobody in the request is subscribed; nothing was sent."""

    errors: tuple[str, ...] = ()


class Throttled(Struct, frozen=True, gc=False):
    """429: not received, as far as effects go. ``user_only`` where the body names the per-user limit.

    ``retry_after_s`` is None where the header is missing or unreadable.
    """

    retry_after_s: float | None = None
    user_only: bool = False


class AppDisabled(Struct, frozen=True, gc=False):
    """The reply of an app that went over its application limit; a person must re-enable it."""


class Fault(Enum):
    """Where a definite refusal puts the fault."""

    MESSAGE = "message"  # app, contents, template, channel, …: every recipient would meet the same
    RECIPIENTS = "recipients"  # the reply names recipients
    UNNAMED = "unnamed"  # the reply does not say
    TAG_CAP = "tag_cap"  # the plan's number of tags a user
    MISSING_USER = "missing_user"  # 404 on a user, who may have been created a moment ago


class Refused(Struct, frozen=True, gc=False):
    """A definite 4xx: it took no effect and never will. ``named`` are the recipients that the reply names."""

    status: int
    errors: tuple[str, ...] = ()
    fault: Fault = Fault.UNNAMED
    named: tuple[str, ...] = ()


class KeyRefused(Struct, frozen=True, gc=False):
    """401, or a 403 whose body says that the key is at fault."""

    status: int
    errors: tuple[str, ...] = ()


class ChannelRefused(Struct, frozen=True, gc=False):
    """Another 403 in JSON: final for this request; the plan or the key lacks the channel or the feature."""

    status: int
    errors: tuple[str, ...] = ()


class ServerFault(Struct, frozen=True, gc=False):
    """5xx, 408, an edge's 403 in HTML, or a 2xx whose body cannot be read: maybe received."""

    status: int
    retry_after_s: float | None = None
    errors: tuple[str, ...] = ()


Verdict = Took | NobodyReached | Throttled | AppDisabled | Refused | KeyRefused | ChannelRefused | ServerFault
