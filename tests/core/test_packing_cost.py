"""What the packer costs does not depend on how much waits: counted in lines executed, which no other load changes."""

from collections import deque
from collections.abc import Callable

import pytest

from sendengine.core.drafts import PackKey
from sendengine.core.packing import Packer
from tests.support.lines import lines_executed

Names = Callable[[int], str]


class Backlog:
    def __init__(self, jobs: int, *, message: Names, recipient: Names, deadline: bool) -> None:
        self.packer: Packer[list[int]] = Packer(max_recipients=50, max_bytes=100_000, linger_s=1)
        self.members = [[index] for index in range(jobs)]
        self.groups = [PackKey(message(index).encode(), "push", "alias", "external_id") for index in range(jobs)]
        self.ids = [(recipient(index),) for index in range(jobs)]
        # every third leaves before half is taken
        leave_s = [1000.0 if index % 3 else 500.0 for index in range(jobs)]
        self.deadline_s = [leave_s[index] + index % 97 / 10 if deadline else None for index in range(jobs)]

    def fill(self) -> None:
        for member, group, ids, deadline_s in zip(self.members, self.groups, self.ids, self.deadline_s, strict=True):
            self.packer.add(member, group=group, ids=ids, alone=False, high=False, deadline_s=deadline_s, now_s=0)

    def expire_some(self) -> None:
        for tenths in range(4990, 5110):
            self.packer.expire(tenths / 10)

    def take_half(self) -> None:
        waiting = self.packer.members
        while self.packer.members > waiting // 2:
            self.packer.next_due_s()
            self.packer.next_expiry_s()
            self.packer.take(now_s=600)

    def expire(self) -> None:
        for tenths in range(9990, 10110):
            self.packer.expire(tenths / 10)

    def drain(self) -> None:
        deque(self.packer.drain_all(), maxlen=0)


def one(_index: int) -> str:
    return "one"


def each(index: int) -> str:
    return f"number {index:05}"


@pytest.mark.parametrize(
    ("message", "recipient"),
    [(one, each), (each, one), (one, one)],
    ids=["one message to all", "a message each", "one recipient again and again"],
)
@pytest.mark.parametrize("deadline", [False, True])
def test_cost_is_linear(message: Names, recipient: Names, deadline: bool) -> None:
    few = Backlog(300, message=message, recipient=recipient, deadline=deadline)
    many = Backlog(3000, message=message, recipient=recipient, deadline=deadline)
    for step in ("fill", "expire_some", "take_half", "expire", "drain"):
        cost_of_few = lines_executed(getattr(few, step))
        cost_of_many = lines_executed(getattr(many, step))
        assert cost_of_many < 11 * cost_of_few + 100, step
