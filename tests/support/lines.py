"""Costs in lines executed, which no other load on the machine changes."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import TraceFunction


def lines_executed(work: Callable[[], None]) -> int:
    """Count Python lines of the core, those of loops and comprehensions each time round.

    What else runs meanwhile is the collector's: the ends of things that earlier tests have left.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _arg: object) -> "TraceFunction | None":
        nonlocal lines
        if not frame.f_globals["__name__"].startswith("sendengine.core."):
            return None
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines
