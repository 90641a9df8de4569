"""Items of a jobs file on their way into the engine: side by side, but a user's own changes one after another.

An item may wait on its way, for room or for its key to be looked up, and must hold up neither other lanes nor other
users.

Units: none.
"""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from sendengine.core.jobs import Job, UpdateUser

HandOver = Callable[[], Awaitable[None]]


class Handing:
    """The items of one run; they set out in the order in which they come."""

    __slots__ = ("_last", "_tasks")

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._last: dict[tuple[str, str], asyncio.Task[None]] = {}  # of each user

    def start(self, job: Job, hand_over: HandOver) -> asyncio.Task[None]:
        """Hand an item over, behind what was started before for the same user."""
        user = (job.user.label, job.user.ids[0]) if isinstance(job, UpdateUser) else None
        before = None if user is None else self._last.get(user)
        task = asyncio.get_running_loop().create_task(_after(before, hand_over))
        self._tasks.add(task)
        if user is not None:
            self._last[user] = task
        task.add_done_callback(partial(self._over, user))
        return task

    async def until_all(self) -> None:
        """Wait for those that are on their way; raises what one of them does."""
        await asyncio.gather(*self._tasks)

    def _over(self, user: tuple[str, str] | None, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if user is not None and self._last[user] is task:
            del self._last[user]


async def _after(before: asyncio.Task[None] | None, hand_over: HandOver) -> None:
    if before is not None and not before.done():
        await asyncio.wait([before])
    await hand_over()
