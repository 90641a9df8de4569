"""Undoes encodings of a reply's body that were not asked for.

Units: bytes.

Decided here: gzip and deflate are undone as far as it goes, any other encoding is left as it is, because the reply's
status and headers are known all the same: a 429 stays a 429, and a 2xx whose JSON cannot be read is classified so.
"""

import zlib
from typing import Final

_EITHER: Final = 32 + zlib.MAX_WBITS  # zlib tells its own header from gzip's
_WINDOWS: Final = {
    "gzip": (_EITHER,),
    "x-gzip": (_EITHER,),
    "deflate": (_EITHER, -zlib.MAX_WBITS),  # some servers call data without any header so
}


def decoded(body: bytes, encoding: str, *, max_bytes: int) -> bytes:
    """Undo the encoding that a ``Content-Encoding`` names, up to ``max_bytes`` of what was encoded."""
    for window in _WINDOWS.get(encoding.strip().lower(), ()):
        unpacking = zlib.decompressobj(window)
        try:
            unpacked = unpacking.decompress(body, max_bytes)
        except zlib.error:
            continue
        if window > 0 or unpacking.eof or len(unpacked) == max_bytes:  # without a header, plain text may look packed
            return unpacked
    return body
