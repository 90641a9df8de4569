"""The console script: starts the command line, or says how to install it."""

import sys
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

    cli(prog_name="sendengine")
