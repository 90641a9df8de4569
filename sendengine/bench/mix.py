"""What a benchmark offers: jobs of a mix, made as they are needed, evenly shuffled and the same in every run.

Units: ``rate`` is jobs a second; shares are from 0 to 1.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from typing import Final

from msgspec import Struct

from sendengine.core.jobs import CreateNotification, Job, UpdateUser, Urgency
from sendengine.core.onesignal import EndpointGroup
from sendengine.core.targets import external_id
from sendengine.errors import SettingsError

_MESSAGE: Final = {"contents": {"en": "Your order has shipped, and is with you tomorrow"}}


class Mix(Struct, frozen=True, kw_only=True):
    """Which jobs, in which proportions.

    ``updates`` of all jobs are user updates, the others notifications; ``high`` of each are urgent. A notification has
    ``recipients``, and ``pack`` lets notifications share requests. All go round ``users`` made-up users: updates of
    one user within a second share a request.
    """

    updates: float
    high: float
    recipients: int
    pack: bool
    users: int

    def __post_init__(self) -> None:
        if not (0 <= self.updates <= 1 and 0 <= self.high <= 1):
            raise SettingsError("the shares of a mix are from 0 to 1")
        if self.recipients < 1 or self.users < self.recipients:
            raise SettingsError(
                f"a notification has at least 1 recipient, and no more than there are users: got {self.recipients:,} "
                f"recipients and {self.users:,} users"
            )

    def share(self, group: EndpointGroup, urgency: Urgency) -> float:
        """Return how many of all jobs are of one kind."""
        kind = self.updates if group is EndpointGroup.UPDATE_USER else 1 - self.updates
        return kind * (self.high if urgency == "high" else 1 - self.high)

    def jobs(self, shares: Mapping[tuple[EndpointGroup, Urgency], float]) -> Iterator[Job]:
        """Make jobs without end, of the kinds in ``shares`` and in that proportion.

        Each next job is of the kind that lags most behind its share.
        """
        makers = {kind: self._of_kind(*kind) for kind, share in shares.items() if share > 0}
        whole = sum(shares[kind] for kind in makers)
        if len(makers) == 1:
            yield from next(iter(makers.values()))
        credit = dict.fromkeys(makers, 0.0)
        while True:
            for kind in makers:
                credit[kind] += shares[kind] / whole
            kind = max(credit, key=credit.__getitem__)
            credit[kind] -= 1
            yield next(makers[kind])

    def _of_kind(self, group: EndpointGroup, urgency: Urgency) -> Iterator[Job]:
        start = self.users // 2 if urgency == "high" else 0  # so that the two seldom meet at one user
        if group is EndpointGroup.UPDATE_USER:
            for number in count(start):
                user = external_id(f"user-{number % self.users}")
                yield UpdateUser(user, tags={"level": number % 50}, urgency=urgency)
        for first in count(start, self.recipients):
            ids = [f"user-{each % self.users}" for each in range(first, first + self.recipients)]
            yield CreateNotification(
                to=external_id(*ids), channel="push", message=_MESSAGE, pack=self.pack, urgency=urgency
            )
