"""How the command line writes: results on standard output, everything said about them on standard error.

A result that cannot be written is an error. What is said about it never is one: a log on a full disk, or a reader that
has gone, must not keep a run from going on, nor from being stopped.
"""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TextIO

import click
import orjson
from msgspec import to_builtins

from sendengine.errors import InputError, SendEngineError, StorageError

_FAULTS_SHOWN: Final = 20
_JSON: Final = orjson.OPT_NON_STR_KEYS


def say(text: str | bytes = "") -> None:
    """Write a line of the result, text or UTF-8; raises BrokenPipeError where nobody reads on, and StorageError."""
    try:
        click.echo(text)
    except OSError as error:
        _let_go(sys.stdout)
        if isinstance(error, BrokenPipeError):
            raise
        raise StorageError(f"standard output cannot be written: {error.strerror}") from None


def note(text: str) -> None:
    """Write a line about what is going on, which is no part of the result; above the progress where that is live."""
    if sys.stderr is None:  # it was closed before we began
        return
    try:
        sys.stderr.write(f"{text}\n")  # click.echo would go past the live progress, which then wipes the line
        sys.stderr.flush()
    except OSError:
        _let_go(sys.stderr)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person is at the other end of a standard stream, which is None where it was closed before we began."""
    return stream is not None and stream.isatty()


def show_json(value: object) -> None:
    """Write the result as JSON, for programs."""
    say(orjson.dumps(value, option=_JSON | orjson.OPT_INDENT_2, default=_plain))


def show_json_line(value: object) -> None:
    """Write a result as one line of JSON, at once: more may follow."""
    say(orjson.dumps(value, option=_JSON, default=_plain))


def show_error(error: SendEngineError) -> None:
    """Write what is wrong, where, and how to mend it; of an input's faults the first twenty."""
    note(f"sendengine: {error or type(error).__name__}")
    if isinstance(error, InputError):
        show_faults(error.faults)


def show_faults(faults: Sequence[str], *, total: int | None = None) -> None:
    """Write the first faults of an input, and how many more there are; ``total`` where not all are listed."""
    for fault in faults[:_FAULTS_SHOWN]:
        note(f"  {fault}")
    more = (len(faults) if total is None else total) - _FAULTS_SHOWN
    if more > 0:
        note(f"  and {more:,} more")


def counted(count: int, noun: str) -> str:
    """Write a number with its noun: ``1 request``, ``2,000 requests``."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def ceiling(rate: float) -> str:
    """Write how many requests a second there may be: ``6,000``, ``0.5``."""
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"  # noqa: PLR2004 - a small one rounded could look like none


def duration(seconds: float) -> str:
    """Write a duration in at most two units: ``0.4 s``, ``2 min 5 s``, ``3 h 10 min``."""
    if 0 < seconds < 0.1:  # noqa: PLR2004 - what is shown as 0.0 would look like nothing
        return "under 0.1 s"
    if seconds < 10:  # noqa: PLR2004 - below it a tenth of a second matters
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest_s} s"
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {rest_s} s"


def _let_go(stream: TextIO) -> None:
    """Send what nobody can take to nowhere from now on: what is left in the buffer would change the exit code."""
    with suppress(OSError):  # a stream that has no descriptor, or none that may be opened
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _plain(value: object) -> object:
    """Give JSON what it lacks: records as objects, paths as texts."""
    return str(value) if isinstance(value, Path) else to_builtins(value)
