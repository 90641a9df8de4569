"""The console script: starts the command line, or says how to install it."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from io import TextIOWrapper
from types import FrameType
from typing import NoReturn

from sendengine.campaign.exits import Exit


def main() -> None:
    """Run the command line on ``sys.argv``; ends with SystemExit."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"sendengine: the command line needs {' and '.join(missing)}; "
            "install it with: python -m pip install 'sendengine[cli]'\n"
        )
        sys.exit(Exit.USAGE)
    with _ending_at_once():
        from sendengine.cli.commands import cli  # noqa: PLC0415 - it imports click, which may be missing

        _fill_standard_streams()
        if isinstance(sys.stdout, TextIOWrapper):  # in a locale that lacks a character, it is written as \u2026
            sys.stdout.reconfigure(errors="backslashreplace")
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:  # it tidies up as Ctrl-C does where nothing is sent yet
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    cli(prog_name="sendengine")


@contextmanager
def _ending_at_once() -> Iterator[None]:
    """Let Ctrl-C end the process where it stands, while modules are loaded and nothing has begun.

    KeyboardInterrupt would end it with a traceback through whatever is being imported, or, raised inside a module
    written in C, with a segmentation fault.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, as in a shell's background
        yield
        return
    signal.signal(signal.SIGINT, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    del number, frame
    with suppress(OSError):  # nobody may be there to read it
        os.write(2, b"\nsendengine: stopped\n")
    os._exit(Exit.ABORTED)


def _fill_standard_streams() -> None:
    """Open what was closed before we began, on nothing: libuv aborts where a socket gets one of these numbers."""
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
