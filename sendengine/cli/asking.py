"""What a person is shown and asked before anything is sent, and when the answer must stand on the command line.

Sending to many people by mistake cannot be undone. So: up to a thousand recipients take a yes on a terminal, more
take the campaign's name; where nobody can be asked, more than a thousand take ``--yes``.
"""

import sys
from typing import Final

import click
from msgspec import Struct

from sendengine.cli import output
from sendengine.cli.output import note
from sendengine.errors import InputError

CAREFUL_ABOVE: Final = 1000


class Expectation(Struct, frozen=True):
    """How many recipients (jobs, of a jobs file) the caller counts on, and by which share the count may differ."""

    count: int
    within: float = 0.0

    def check(self, found: int, *, noun: str) -> None:
        """Raise InputError where the input has another count."""
        if abs(found - self.count) > self.within * self.count:
            raise InputError(
                f"--expect {self.count}: the input has {found:,} {noun} to send, which is not within "
                f"{self.within:.1%} of it; nothing was sent. Look at the input, or correct --expect"
            )


def can_ask() -> bool:
    """Whether a person can be asked and can see the question."""
    return output.is_terminal(sys.stdin) and output.is_terminal(sys.stderr)


def confirm(*, name: str, recipients: int | None, is_sure: bool) -> bool:
    """Ask whether to send; ``recipients`` None are an unknown number, and as many as can be.

    Returns whether to go on. Raises InputError where an answer is needed and nobody can be asked.
    """
    is_many = recipients is None or recipients > CAREFUL_ABOVE
    if is_sure:
        return True
    if not can_ask():
        if not is_many:
            return True
        many = "an unknown number of recipients may be" if recipients is None else f"{recipients:,} recipients are"
        raise InputError(
            f"{name}: {many} more than {CAREFUL_ABOVE:,}, and nobody can be asked here; "
            "add --yes to send all the same. Nothing was sent"
        )
    if not is_many:
        return click.confirm("Send?", default=False, err=True)
    typed = click.prompt(f"To send, type the name of it ({name})", default="", show_default=False, err=True)
    if str(typed).strip() == name:
        return True
    note("That is another name.")
    return False
