"""An ASGI application for hypercorn: it echoes a request's body, and says how often each came."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

Message = dict[str, Any]
CAME: Final[Counter[bytes]] = Counter()


async def app(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/most":
        body = b"%d" % max(CAME.values(), default=0)
    elif scope["path"] == "/echo":
        CAME[body] += 1
    version = scope["http_version"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", version)]})
    await send({"type": "http.response.body", "body": body})
