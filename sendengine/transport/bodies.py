"""A reply's body: read whole or up to a bound, and decoded.

Units: bytes.

Decided here: a body beyond the bound is cut, its connection closed, and the reply returned all the same, because its
status and headers are known: a 429 stays a 429, and a 2xx whose JSON is cut is classified as unreadable. An encoding
that was not asked for is undone where it is gzip or deflate and left as it is otherwise, for the same reason.
"""

import zlib
from collections.abc import Mapping
from typing import Final

from aiohttp import ClientResponse

_EITHER: Final = 32 + zlib.MAX_WBITS  # zlib tells its own header from gzip's
_WINDOWS: Final = {
    "gzip": (_EITHER,),
    "x-gzip": (_EITHER,),
    "deflate": (_EITHER, -zlib.MAX_WBITS),  # some servers call data without any header so
}


async def bounded_body(response: ClientResponse, headers: Mapping[str, str], *, max_bytes: int) -> bytes:
    """Read and decode a reply's body, at most ``max_bytes`` of it; the connection is given back or closed.

    Cancelling it closes the connection, and so does whatever it raises.
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) <= max_bytes and "transfer-encoding" not in headers:
        body = await response.read()
    else:
        body = await _read_up_to(response, max_bytes)
    encoding = headers.get("content-encoding", "").strip().lower()
    return _decoded(body, encoding, max_bytes=max_bytes) if encoding in _WINDOWS else body


async def _read_up_to(response: ClientResponse, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    size = 0
    try:
        async for piece in response.content.iter_any():
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                break
    except BaseException:
        response.close()
        raise
    response.release()  # closes where not everything was read
    return b"".join(pieces)[:max_bytes]


def _decoded(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Undo gzip or deflate as far as it goes; what is neither stays as it is."""
    for window in _WINDOWS[encoding]:
        unpacking = zlib.decompressobj(window)
        try:
            unpacked = unpacking.decompress(body, max_bytes)
        except zlib.error:
            continue
        if window > 0 or unpacking.eof or len(unpacked) == max_bytes:  # without a header, plain text may look packed
            return unpacked
    return body
