"""Which settled requests give way to others: those are sealed next, under other keys, for the recipients that are left.

Units: none.
"""

from collections.abc import Sequence
from typing import Final

from sendengine.core.outcomes import Expired, Rejected
from sendengine.ports import Portion

_WITHOUT_EFFECT: Final = (Rejected, Expired)


def gives_way(portions: Sequence[Portion]) -> bool:
    """Whether the request of these portions certainly had no effect, so that others may carry what is left of it.

    Then it must be gone from the disk before those are there, or a later process sends both. Any other request goes
    together with its jobs: of one that was accepted these must not be left without it.
    """
    return all(isinstance(portion.outcome, _WITHOUT_EFFECT) for portion in portions)
