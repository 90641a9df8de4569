"""Judges by how requests end whether going on with a run makes sense: the first go alone, then an error budget counts.

The first request of a campaign opens the way when it is accepted. The jobs of a file have no message in common: the
first of an app goes alone, so that a wrong key costs one of them. Where they have an error budget, they go one by one
until one is accepted, so that a wrong address costs no more of them than the budget needs to judge.

Units: rates are parts of 1.
"""

from collections.abc import Callable, Iterable
from typing import Final

from sendengine.campaign.errorbudget import LEAST, ErrorBudget
from sendengine.campaign.work import Item, Work
from sendengine.core.jobs import CreateNotification
from sendengine.core.outcomes import SPLIT, Abandoned, Accepted, Expired, Outcome, Unreachable
from sendengine.ports import RequestRecord

ALONE: Final = 5
"""Single recipients that are tried, one after another, before a campaign of a request a row is taken for faulty."""


class Judge:
    """Of one run. ``has_ended`` tells whether all has settled, ``stop`` is called with a sentence where too much fails.

    ``max_error_rate`` None is no error budget.
    """

    def __init__(
        self,
        work: Work,
        *,
        max_error_rate: float | None,
        has_ended: Callable[[], bool],
        stop: Callable[[str], None],
    ) -> None:
        self.is_open = False
        """Whether a request of a campaign was accepted."""
        self._work = work
        self._budget = None if max_error_rate is None else ErrorBudget(max_error_rate)
        self._has_ended = has_ended
        self._stop = stop
        self._refused_alone = 0
        self._alone = 1 if self._budget is None else LEAST
        self._left_alone: dict[str | None, int] = {}  # of each app's jobs, how many more go alone

    def goes_alone(self, app: str | None) -> bool:
        """Whether the next job of an app in a jobs file has to be waited for."""
        return self._left_alone.get(app, self._alone) > 0

    def trust(self, app: str | None) -> None:
        """Let all further jobs of an app go side by side."""
        self._left_alone[app] = 0

    def request_settled(self, record: RequestRecord) -> None:
        """Count a request of a jobs file: several of its jobs may share one, and are one error then."""
        if self._work.is_campaign or self._budget is None or record.outcome == SPLIT:
            return
        outcomes = [part.outcome for _, part in record.parts]
        if not all(map(_says_nothing, outcomes)):
            self._budget.note(is_error=not _any_good(outcomes))
            self._look()

    def item_refused(self, item: Item) -> None:
        """Count an item that the engine itself refused: the settings may have become others since it was checked."""
        if self._work.is_campaign:
            self._pack_settled(item, is_error=True, is_answered=False)
        elif self._budget is not None:
            self._budget.note(is_error=True)
            self._look()

    def item_settled(self, item: Item, outcomes: Iterable[Outcome]) -> None:
        """Take note of what came of an item, and of its parts; the first outcome is its own."""
        own, *parts = outcomes
        says_nothing = _says_nothing(own) or self._work.is_overdue
        is_error = not says_nothing and not _any_good([own, *parts])
        if not self._work.is_campaign:
            self._job_settled(item.job.app, is_error=is_error)
        elif not says_nothing:
            self._pack_settled(item, is_error=is_error)

    def _job_settled(self, app: str | None, *, is_error: bool) -> None:
        """Stop where nothing of an app's first jobs is accepted; some are refused without a request, as others were."""
        if not is_error:  # those that expire must not wait for one another, either
            self.trust(app)
            return
        left = self._left_alone[app] = self._left_alone.get(app, self._alone) - 1
        if left == 0 and self._budget is not None and self._budget.max_rate < 1 and not self._has_ended():
            self._stop(f"nothing of the first {LEAST} jobs was accepted; failures.jsonl says why")

    def _pack_settled(self, item: Item, *, is_error: bool, is_answered: bool = True) -> None:
        """Open the way after a first success; stop where the message seems to be at fault, or too much fails.

        User changes have no message: any answer to the first one says that the key is good.
        """
        if not is_error or (is_answered and not isinstance(item.job, CreateNotification)):
            self.is_open = True
        if self._budget is not None:
            self._budget.note(is_error=is_error)
        if self._has_ended():
            return
        if self.is_open:
            self._look()
            return
        self._refused_alone += 1
        if item.count > 1 or self._refused_alone >= ALONE:
            self._stop("nothing of the first requests was accepted; failures.jsonl says why")

    def _look(self) -> None:
        if self._budget is not None and self._budget.is_spent:
            self._stop(f"the error budget is spent: {self._budget}; failures.jsonl says why")


def _says_nothing(outcome: Outcome) -> bool:
    """Whether a job ended because the run did, or too late."""
    return isinstance(outcome, (Abandoned, Expired))


def _any_good(outcomes: Iterable[Outcome]) -> bool:
    return any(isinstance(each, (Accepted, Unreachable)) for each in outcomes)
