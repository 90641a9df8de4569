"""Programs that tests start, listen to and end. Nothing here waits for ever: a program that hangs fails its test."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any, TypeAlias

import orjson

LIMIT_S = 60.0
"""How long a program may take for anything; whatever takes longer hangs."""
LOOK_S = 0.01
"""How long nobody looks: a look may cost the machine as much as what is looked for."""
SENDENGINE = (sys.executable, "-c", "from sendengine.cli.main import main; main()")

Program: TypeAlias = "subprocess.Popen[str]"


@contextmanager
def started(*command: str, **options: Any) -> Iterator[Program]:
    """A program for as long as the block lasts; it is killed at the end of it, where it still lives."""
    process = subprocess.Popen(command, text=True, **options)  # noqa: S603 - our own programs
    try:
        yield process
    finally:
        process.kill()
        process.wait(LIMIT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def line_of(process: Program) -> str:
    """The next line that a program writes to its standard output."""
    assert process.stdout is not None
    with watched(process):
        line = str(process.stdout.readline())
    assert line, f"{process.args!r} said nothing within {LIMIT_S:.0f} s"
    return line


@contextmanager
def watched(process: Program) -> Iterator[None]:
    """Kill a program that takes too long for the block, so that whoever reads what it writes comes to its end."""
    timer = Timer(LIMIT_S, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def ended(process: Program, typed: str | None = None) -> tuple[str, str]:
    """Wait until a program has ended; returns what it has written."""
    output, errors = process.communicate(typed, timeout=LIMIT_S)
    return output or "", errors or ""


def until(is_so: Callable[[], bool], process: Program) -> None:
    """Wait until something is so, which a program that lives is to bring about."""
    until_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < until_s, f"{process.args!r} did not do it within {LIMIT_S:.0f} s"
        time.sleep(LOOK_S)


@contextmanager
def mock_server(*arguments: str) -> Iterator[str]:
    """``sendengine mock``; gives its base URL."""
    with started(*SENDENGINE, "mock", "--json", *arguments, stdout=subprocess.PIPE) as process:
        yield orjson.loads(line_of(process))["base_url"]
        process.terminate()
        ended(process)
