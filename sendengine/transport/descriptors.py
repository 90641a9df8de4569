"""How many connections the operating system lets this process have.

Units: file descriptors; a connection takes one.
"""

import sys
from typing import Final

RESERVED: Final = 100  # for files, the loop, DNS and whatever else the process has open


def bounded_connections(wanted: int) -> int:
    """Return ``wanted``, or less where the process may not have as many descriptors; at least 1.

    Raises the soft limit to the hard one first: measured, a server that turns slow at 6,000 requests/s needs
    thousands of connections, and the usual soft limit of 1,024 would end in EMFILE.
    """
    limit = _raised_limit()
    return wanted if limit is None else max(1, min(wanted, limit - RESERVED))


if sys.platform == "win32":

    def _raised_limit() -> int | None:
        return None

else:
    import resource

    def _raised_limit() -> int | None:
        """Raise the soft limit as far as it goes, and return it; None where there is none."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != hard:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            except (ValueError, OSError):  # macOS takes no "unlimited" here
                return None if soft == resource.RLIM_INFINITY else soft
        return None if hard == resource.RLIM_INFINITY else hard
