"""What both transports know of a request that is being written over HTTP/1.1.

Units: bytes.
"""

import asyncio
from typing import Final

JOINED_BYTES: Final = 65_536
"""A larger body goes out as a second piece: copying it behind its head would cost more."""

_SUCCESS: Final = range(200, 300)


def may_be_unsent(transport: asyncio.WriteTransport, status: int, *, has_tls: bool) -> bool:
    """Whether some of a large request may still wait to be written when its reply has come.

    Over TLS the loop does not say what it has encrypted and not written yet; a server that did not read the
    request to its end will hardly say that it succeeded.
    """
    return bool(transport.get_write_buffer_size()) or (has_tls and status not in _SUCCESS)
