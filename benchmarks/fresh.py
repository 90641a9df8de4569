"""Runs contestants in processes of their own: no one inherits another's heap, collector or event loop.

Units: seconds.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Final, TypeVar

from benchmarks.benchmark import LoopKind
from sendengine import tune_allocator
from sendengine.mockserver import fast_loop

_Task = TypeVar("_Task")
_Found = TypeVar("_Found")

WITHIN_S: Final = 900.0
"""No turn lasts longer, so that none can hang."""


async def in_fresh_process(function: Callable[[_Task], _Found], task: _Task) -> _Found:
    """Call ``function(task)`` in a new interpreter; both and the result must be picklable."""
    return (await in_fresh_processes(function, [task]))[0]


async def in_fresh_processes(function: Callable[[_Task], _Found], tasks: Sequence[_Task]) -> list[_Found]:
    """Call ``function`` for all tasks at once, each in a new interpreter, whose allocator is the command line's."""
    loop = asyncio.get_running_loop()
    with ProcessPoolExecutor(len(tasks), mp_context=get_context("spawn"), initializer=tune_allocator) as pool:
        return await asyncio.gather(*(loop.run_in_executor(pool, function, task) for task in tasks))


def run_on(kind: LoopKind, main: Coroutine[object, object, _Found], *, within_s: float = WITHIN_S) -> _Found:
    """Run a coroutine on an event loop of that kind. Raises TimeoutError where it takes longer than ``within_s``."""
    with asyncio.Runner(loop_factory=fast_loop if kind == "uvloop" else asyncio.new_event_loop) as runner:
        return runner.run(asyncio.wait_for(main, within_s))
