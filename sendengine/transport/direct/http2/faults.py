"""What a server does wrong, by whom it concerns: one stream, or the whole connection; and the codes on the wire.

Source: RFC 9113, sections 5.4 and 7.
"""

from typing import Final

NO_ERROR: Final = 0x0
PROTOCOL_ERROR: Final = 0x1
FLOW_CONTROL_ERROR: Final = 0x3
STREAM_CLOSED: Final = 0x5
FRAME_SIZE_ERROR: Final = 0x6
REFUSED_STREAM: Final = 0x7
CANCEL: Final = 0x8
COMPRESSION_ERROR: Final = 0x9
ENHANCE_YOUR_CALM: Final = 0xB
HTTP_1_1_REQUIRED: Final = 0xD

_NAMES: Final = (
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
)


class ConnectionFaultError(Exception):
    """The connection cannot go on; internal, never leaves the transport. ``code`` is for GOAWAY."""

    def __init__(self, code: int, problem: str) -> None:
        super().__init__(f"{problem} ({name_of(code)})")
        self.code = code


class StreamFaultError(Exception):
    """One reply cannot be taken, the others can; internal, never leaves the transport. ``code`` is for RST_STREAM."""

    def __init__(self, problem: str, *, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(f"{problem} ({name_of(code)})")
        self.code = code


def name_of(code: int) -> str:
    """Return a code as RFC 9113 spells it, or its number."""
    return _NAMES[code] if code < len(_NAMES) else f"code {code}"
