"""A reply's body over aiohttp: read up to a bound.

Units: bytes.

Decided here: a body beyond the bound is cut, its connection closed, and the reply returned all the same, because its
status and headers are known: a 429 stays a 429, and a 2xx whose JSON is cut is classified as unreadable.
"""

from aiohttp import StreamReader


async def bounded_body(payload: StreamReader, *, max_bytes: int) -> bytes:
    """Read a reply's body, at most ``max_bytes`` of it; where there is more, its connection is of no further use.

    Raises what aiohttp raises where it does not come whole.
    """
    pieces: list[bytes] = []
    size = 0
    async for piece in payload.iter_any():
        pieces.append(piece)
        size += len(piece)
        if size > max_bytes:
            break
    return b"".join(pieces)[:max_bytes]
