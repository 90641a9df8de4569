"""How long a connection is kept: at most `MAX_AGE_S`, and `IDLE_S` without use.

Units: seconds.
"""

from typing import Final

from sendengine.core.onesignal import DNS_TTL_S

MAX_AGE_S: Final = float(DNS_TTL_S)
IDLE_S: Final = 55.0  # below the minute after which load balancers close; a request that meets the closing is lost
_GOLDEN: Final = 0.618033988749895  # its multiples fill an interval evenly


def lifetime_s(number: int) -> float:
    """Return how long the ``number``-th connection may live: each a different while, between half of it and all.

    So those that were opened together are not all replaced in the same second.
    """
    return MAX_AGE_S * (0.5 + (number * _GOLDEN) % 1 / 2)
