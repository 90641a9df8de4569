"""Kills its own process at a named point, by wrapping a function of the package from outside."""

import importlib
import os
import signal
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from threading import Thread
from time import sleep
from typing import Any, Literal, NamedTuple


class Point(NamedTuple):
    """Where a process dies: before, after, or so long after the beginning of the ``nth`` call of ``target``.

    ``target`` is written as ``module:name`` or ``module:Class.name``.
    """

    target: str
    when: Literal["before", "after", "during"] = "before"
    nth: int = 1
    delay_s: float = 0.0


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: Point) -> None:
    """Let this process die at a point."""
    calls = 0

    def is_it() -> bool:
        nonlocal calls
        calls += 1
        return calls == point.nth

    replace(point.target, lambda real: _deadly(real, point, is_it))


def put(target: str, value: object) -> None:
    """Put another value in the place of one of a module or class."""
    replace(target, lambda _: value)


def replace(target: str, make: Callable[[Callable[..., Any]], Any]) -> None:
    """Put what ``make`` makes of it in the place of a function of a module or class."""
    module_name, _, path = target.partition(":")
    owner: Any = importlib.import_module(module_name)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    setattr(owner, name, make(getattr(owner, name)))


def _deadly(real: Callable[..., Any], point: Point, is_it: Callable[[], bool]) -> Callable[..., Any]:
    if iscoroutinefunction(real):

        @wraps(real)
        async def wrapped_coroutine(*args: Any, **options: Any) -> Any:
            is_the_one = is_it()
            if is_the_one:
                _begin(point)
            result = await _awaited(real(*args, **options))
            if is_the_one and point.when == "after":
                die()
            return result

        return wrapped_coroutine

    @wraps(real)
    def wrapped(*args: Any, **options: Any) -> Any:
        is_the_one = is_it()
        if is_the_one:
            _begin(point)
        result = real(*args, **options)
        if is_the_one and point.when == "after":
            die()
        return result

    return wrapped


async def _awaited(what: Awaitable[Any]) -> Any:
    return await what


def _begin(point: Point) -> None:
    if point.when == "before":
        die()
    elif point.when == "during":
        Thread(target=_die_later, args=(point.delay_s,), daemon=True).start()


def _die_later(delay_s: float) -> None:
    sleep(delay_s)
    die()
