"""The console script: starts the command line, or says how to install it."""

import os
import sys
from contextlib import suppress
from importlib.util import find_spec

from sendengine.cli.exits import Exit


def main() -> None:
    """Run the command line on ``sys.argv``; ends with SystemExit."""
    missing = [name for name in ("click", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"sendengine: the command line needs {' and '.join(missing)}; "
            "install it with: python -m pip install 'sendengine[cli]'\n"
        )
        sys.exit(Exit.USAGE)
    from sendengine.cli.commands import cli  # noqa: PLC0415 - it imports click, which may be missing

    _fill_standard_streams()
    cli(prog_name="sendengine")


def _fill_standard_streams() -> None:
    """Open what was closed before we began, on nothing: libuv aborts where a socket gets one of these numbers."""
    for descriptor in range(3):
        with suppress(OSError):
            os.fstat(descriptor)
            continue
        os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
