"""What is spoken of between a connection and the service, whichever version of HTTP is spoken on the wire."""

from collections.abc import Sequence
from typing import Protocol

from sendengine.mockserver.config import MockConfig
from sendengine.mockserver.replies import Answer


class Exchange(Protocol):
    """One request, and how it ends. Of the endings exactly one is called, at any time."""

    url: bytes
    method: bytes
    authorization: bytes
    content_type: bytes
    body: bytes

    @property
    def is_http2(self) -> bool:
        """Whether it came over HTTP/2."""
        ...

    @property
    def is_read(self) -> bool:
        """Whether the client is still there to read the reply."""
        ...

    def reply(self, answer: Answer) -> None:
        """Reply; over HTTP/1.1 once the requests before it have their replies."""
        ...

    def reply_slowly(self, answer: Answer, *, pieces: Sequence[bytes], pause_s: float) -> None:
        """Reply with the body in pieces, ``pause_s`` apart."""
        ...

    def reply_cut(self, answer: Answer, *, size: int) -> None:
        """Reply with no more than ``size`` bytes of the body, and break off."""
        ...

    def leave_after(self) -> None:
        """Take no more requests on the connection, and close it when those that are under way have their replies."""
        ...

    def refuse(self) -> None:
        """Say, where the protocol can, that the request was not looked at; else close without a reply."""
        ...

    def close(self) -> None:
        """End without a reply, as a peer that has gone away does."""
        ...

    def close_later(self, delay_s: float) -> None:
        """Leave the client without a reply for so long, then `close`."""
        ...

    def reset(self) -> None:
        """End without a reply, as a peer that has crashed does."""
        ...

    def drop_connection(self) -> None:
        """Reset the connection, with everything on it."""
        ...


class Wire(Protocol):
    """The connection below a speaker."""

    @property
    def is_open(self) -> bool:
        """Whether it is still there."""
        ...

    def write(self, data: bytes) -> None:
        """Write, where the client is still there."""
        ...

    def close(self) -> None:
        """Close, after what is written already."""
        ...

    def reset(self) -> None:
        """Send RST at once."""
        ...


class Link(Protocol):
    """One client's connection, as the service knows it."""

    def reset(self) -> None:
        """Send RST at once."""
        ...

    def configured(self) -> None:
        """Take note of new settings."""
        ...

    def go_away(self, *, hard: bool) -> None:
        """Take no more requests; answer those under way and close, or where it is ``hard``, close at once."""
        ...

    def stop_reading(self) -> None:
        """Read nothing more until `read_on`; replies go on."""
        ...

    def read_on(self) -> None:
        """Read again."""
        ...


class Front(Protocol):
    """Who answers requests."""

    config: MockConfig

    def opened(self, connection: Link) -> None:
        """Take note of a connection; it may be reset at once."""
        ...

    def closed(self, connection: Link) -> None:
        """Take note that a connection is gone."""
        ...

    def spoken(self, *, is_http2: bool) -> None:
        """Take note of what a connection turns out to speak."""
        ...

    def receive(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        ...

    def unparsable(self) -> None:
        """Take note of bytes that are no request."""
        ...

    def too_many(self) -> None:
        """Take note of a request beyond the limit of streams, which was refused."""
        ...


class Speaker(Protocol):
    """What is spoken on one connection."""

    def feed(self, data: bytes) -> None:
        """Read requests, whole or in pieces."""
        ...

    def lost(self) -> None:
        """Forget what was not answered yet: the connection is gone."""
        ...

    def configured(self) -> None:
        """Take note of new settings."""
        ...

    def go_away(self, *, hard: bool) -> None:
        """As `Link.go_away`."""
        ...
