"""What a foreign exception means for a request: certainly not received, or perhaps.

Method: what was raised matters less than when. Before the first byte was written nothing can have been received;
after it, nothing but a reply proves what became of the request.
"""

import re
from typing import Final

from sendengine.errors import NotSentError, ReplyLostError, TransportError

FOREIGN: Final = (OSError, EOFError, ValueError, RuntimeError)
"""What asyncio, uvloop, ssl and socket raise.

TimeoutError and ssl.SSLError are OSErrors; uvloop raises RuntimeError where asyncio raises OSError.
"""

_CHARACTERS: Final = 300
_PASSWORD: Final = re.compile(r"(?<=://)[^/@\s'\"]+@")


def failure(error: Exception, *, is_written: bool) -> TransportError:
    """Make the error of ours that an exchange ends in; it carries the foreign one's words and not the exception.

    Foreign ones may hold what was read, and a proxy's address with its password: they are neither chained nor kept.
    """
    if is_written:
        return ReplyLostError(f"the reply was lost: {words(error)}")
    return NotSentError(f"no connection: {words(error)}")


def words(error: BaseException) -> str:
    """Say what a foreign exception says: its name and the beginning of its text, without passwords."""
    text = _PASSWORD.sub("", str(error)) or "no details"
    return f"{type(error).__name__}: {text[:_CHARACTERS]}"
