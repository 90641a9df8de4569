"""How long a connection is kept: at most `MAX_AGE_S`, and `IDLE_S` without use, or less where the server says so.

Units: seconds.
"""

import re
from typing import Final

from sendengine.core.onesignal import DNS_TTL_S

MAX_AGE_S: Final = float(DNS_TTL_S)
IDLE_S: Final = 55.0  # below the minute after which load balancers close; a request that meets the closing is lost
_EARLIER_S: Final = 1.0  # than the server closes: its time begins before its reply is here, and a request is on its way
_TIMEOUT: Final = re.compile(r"\btimeout\s*=\s*\"?(\d{1,9})\b", re.ASCII | re.IGNORECASE)
_GOLDEN: Final = 0.618033988749895  # its multiples fill an interval evenly


def lifetime_s(number: int) -> float:
    """Return how long the ``number``-th connection may live: each a different while, between half of it and all.

    So those that were opened together are not all replaced in the same second.
    """
    return MAX_AGE_S * (0.5 + (number * _GOLDEN) % 1 / 2)


def idle_s(keep_alive: str | None) -> float:
    """Return for how long a connection may be idle whose server says ``Keep-Alive``; None where it says nothing.

    A second less than the server, or half of it: one that is used in the instant in which the server closes it costs a
    request its reply. Source: draft-thomson-hybi-http-timeout-03, section 2, as Node, Apache and gunicorn send it.
    """
    found = _TIMEOUT.search(keep_alive or "")
    if found is None:
        return IDLE_S
    said_s = float(found[1])
    return min(IDLE_S, max(said_s - _EARLIER_S, said_s / 2))
