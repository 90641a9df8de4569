"""Reads an input once, before anything is sent, and lets a terminal see how far it is."""

import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Final, Self

import click

from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import STANDARD_INPUT, LoadedInput, load_input
from sendengine.cli.output import is_terminal
from sendengine.errors import InputError
from sendengine.settings import Settings

RENAME: Final = "the manifest has to hold it, so rename it"
_EVERY_S: Final = 0.5


def read_input(source: str, settings: Settings, *, name: str | None, spool: Callable[[], RunDir]) -> LoadedInput:
    """Read and check an input file; standard input (``-``) is copied into the directory that ``spool`` gives first.

    Raises InputError where it cannot be used at all, and StorageError where the copy cannot be written.
    """
    check_text(source, name)
    path = Path(source)
    if source == STANDARD_INPUT:
        if sys.stdin is None:
            raise InputError(f"{source}: standard input is closed; name a file, or pipe the jobs in")
        path = spool().spool(sys.stdin.buffer)
        name = name or "standard-input"
    with _Ticker() as ticker:
        return load_input(path, settings, name=name, when_read=ticker)


def check_text(*texts: str | None, mend: str = "rename the file, or give --name another one") -> None:
    """Raise InputError for a name that no report can hold: bytes of a command line that are no text."""
    for text in texts:
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise InputError(f"{text!a}: the name is not UTF-8; {mend}") from None


def read_for_a_look(source: str, settings: Settings) -> LoadedInput:
    """Read and check an input that is not going to be sent; nothing of it stays on disk."""
    with TemporaryDirectory(prefix="sendengine-") as folder:
        return read_input(source, settings, name=None, spool=lambda: RunDir(Path(folder)))


class _Ticker:
    """Tells a terminal how many rows have been read, twice a second; anything else is told nothing."""

    def __init__(self) -> None:
        self._is_told = is_terminal(sys.stderr)
        self._next_s = monotonic() + _EVERY_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_told:
            click.echo("\r\033[K", err=True, nl=False)

    def __call__(self, rows: int) -> None:
        if self._is_told and monotonic() >= self._next_s:
            self._next_s = monotonic() + _EVERY_S
            click.echo(f"\rreading, {rows:,} rows", err=True, nl=False)
