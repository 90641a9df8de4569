"""The parts that stop a run by themselves: error budget, outage watch, held apps; and the flow that bounds it."""

import asyncio
from typing import cast

import pytest

from sendengine.campaign import flow
from sendengine.campaign.errorbudget import ErrorBudget
from sendengine.campaign.flow import Flow
from sendengine.campaign.judge import Judge
from sendengine.campaign.watch import OutageWatch, held_app
from sendengine.campaign.work import Item, Work
from sendengine.core.jobs import UpdateUser
from sendengine.core.outcomes import Rejected
from sendengine.core.targets import external_id
from sendengine.telemetry.counters import LaneCounters
from sendengine.telemetry.snapshots import AppStats


def test_nothing_is_judged_before_twenty_and_only_the_last_two_hundred_count() -> None:
    budget = ErrorBudget(0.05)
    for count, is_error, is_spent in [
        (19, True, False),  # not judged yet
        (1, False, True),  # 19 of 20
        (179, False, True),  # 19 of 199 are 9.5 %
        (1, False, True),
        (8, False, True),  # the first 8 errors have left the window: 11 of 200
        (1, False, False),  # 10 of 200 are 5 %, and may fail
        (9, False, False),
        (10, True, False),  # the old ones are gone, and ten new ones are 5 %
        (1, True, True),
    ]:
        for _ in range(count):
            budget.note(is_error=is_error)
        assert budget.is_spent is is_spent, str(budget)
    assert str(budget) == "11 of the last 200 requests failed, and 5.0% may"


class OfUsers:
    """What a judge asks of a campaign of user changes."""

    is_campaign = True
    is_overdue = False


def test_what_the_engine_itself_refuses_does_not_say_that_the_key_is_good() -> None:
    stops: list[str] = []
    judge = Judge(cast("Work", OfUsers()), max_error_rate=None, has_ended=lambda: False, stop=stops.append)
    item = Item(UpdateUser(external_id("u"), {"a": 1}), 1, 0, 1)
    for _ in range(4):
        judge.item_refused(item)
        assert (judge.is_open, stops) == (False, [])
    judge.item_refused(item)
    assert stops == ["nothing of the first requests was accepted; failures.jsonl says why"]
    judge.item_settled(item, [Rejected(400, ())])
    assert judge.is_open


def test_a_budget_of_nothing_is_spent_by_one_error() -> None:
    budget = ErrorBudget(0)
    for _ in range(20):
        budget.note(is_error=False)
    assert not budget.is_spent
    budget.note(is_error=True)
    assert budget.is_spent


def test_an_outage_is_failures_without_an_answer_for_too_long() -> None:
    watch = OutageWatch(max_s=10)
    lane = LaneCounters()
    for at_s, happens, is_out in [
        (0, "nothing", False),
        (100, "nothing", False),  # a lane that is held back is not out
        (101, "reset", False),
        (105, "503", False),
        (111, "nothing", False),  # ten seconds since the first failure
        (112, "nothing", True),
        (113, "429", False),  # an answer, if not a welcome one
        (114, "refused", False),
        (124, "nothing", False),
        (125, "refused", True),
    ]:
        match happens:
            case "reset":
                lane.lost += 1
            case "refused":
                lane.not_sent += 1
            case "429" | "503":
                lane.replied(int(happens), latency_s=0.1)
        assert (watch.look({"shop/update_user": lane}, now_s=at_s) is not None) == is_out, f"at {at_s} s"


@pytest.mark.parametrize(
    ("used", "told"),
    [
        ({"shop"}, "app 'shop' is held: its key"),
        ({None}, "app 'shop' is held: its key"),
        ({"news"}, None),
        (set(), None),
    ],
)
def test_only_apps_in_use_are_looked_at(used: set[str | None], told: str | None) -> None:
    apps = {
        name: AppStats(held=held, subscribed_users=None, delivered=0, application_limit=None)
        for name, held in (("shop", "its key"), ("news", None))
    }
    assert held_app(apps, used=used) == told


async def test_who_waits_for_room_goes_on_when_there_is_some_or_when_all_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow, "MOST_ITEMS", 1)
    bounded = Flow()
    await bounded.until_room()
    bounded.enter(5)
    waiting = asyncio.create_task(bounded.until_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    bounded.leave(5)
    await waiting
    bounded.enter(5)
    waiting = asyncio.create_task(bounded.until_idle())
    await asyncio.sleep(0)
    bounded.cut()
    await waiting
    await bounded.until_room()
    assert (bounded.items, bounded.size_bytes) == (1, 5)
