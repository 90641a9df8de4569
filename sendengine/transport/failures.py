"""What a foreign exception means for a request: certainly not received, or perhaps.

Method: what was raised matters less than when. Before the first byte was written nothing can have been received;
after it, nothing but a reply proves what became of the request.
"""

import re
from typing import Final

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from sendengine.errors import NotSentError, ReplyLostError, TransportError

FOREIGN: Final = (aiohttp.ClientError, HttpProcessingError, OSError, EOFError, ValueError, RuntimeError, AssertionError)
"""What aiohttp, asyncio, uvloop, ssl and socket raise.

TimeoutError and ssl.SSLError are OSErrors, InvalidURL is a ValueError; uvloop raises RuntimeError where asyncio raises
OSError, and aiohttp asserts that a connection has not been closed under it.
"""

_CHARACTERS: Final = 300
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s'\"]+@")


def failure(error: Exception, *, is_written: bool) -> TransportError:
    """Make the error of ours that an exchange ends in; it carries the foreign one's words and not the exception.

    aiohttp's exceptions hold the request's headers, and so the key: they are neither chained nor kept.
    """
    if is_written:
        return ReplyLostError(f"the reply was lost: {_words(error)}")
    return NotSentError(f"no connection: {_words(error)}")


def _words(error: Exception) -> str:
    text = _PASSWORD.sub("", str(error)) or "no details"
    return f"{type(error).__name__}: {text[:_CHARACTERS]}"
