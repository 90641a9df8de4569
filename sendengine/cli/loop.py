"""Runs a command that is a coroutine."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

_Result = TypeVar("_Result")


def run(command: Callable[[], Awaitable[_Result]]) -> _Result:
    """Run ``command`` on uvloop, and return or raise what it does."""
    return anyio.run(command, backend_options={"use_uvloop": True})
