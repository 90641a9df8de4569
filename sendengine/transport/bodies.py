"""A reply's body over aiohttp: read whole or up to a bound, and decoded.

Units: bytes.

Decided here: a body beyond the bound is cut, its connection closed, and the reply returned all the same, because its
status and headers are known: a 429 stays a 429, and a 2xx whose JSON is cut is classified as unreadable.
"""

from collections.abc import Mapping

from aiohttp import ClientResponse

from sendengine.transport.encodings import decoded


async def bounded_body(response: ClientResponse, headers: Mapping[str, str], *, max_bytes: int) -> bytes:
    """Read and decode a reply's body, at most ``max_bytes`` of it; the connection is given back or closed.

    Cancelling it closes the connection, and so does whatever it raises.
    """
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) <= max_bytes and "transfer-encoding" not in headers:
        body = await response.read()
    else:
        body = await _read_up_to(response, max_bytes)
    encoding = headers.get("content-encoding")
    return decoded(body, encoding, max_bytes=max_bytes) if encoding else body


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
