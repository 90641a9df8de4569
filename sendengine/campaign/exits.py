"""What the exit codes mean, of a run and of the command line, and which error ends in which."""

from enum import IntEnum
from typing import Final

from sendengine.errors import (
    AppHeldError,
    InputError,
    InvalidJobError,
    KeyReusedError,
    SendEngineError,
    SettingsError,
    StorageError,
)


class Exit(IntEnum):
    """The exit codes; 75 is EX_TEMPFAIL of sysexits.h, 130 is 128 and SIGINT."""

    OK = 0  # all accepted or unreachable
    INTERNAL = 1  # a fault of sendengine itself
    USAGE = 2  # usage, settings or input invalid; nothing was sent
    NOT_ALL_ACCEPTED = 3  # finished, some not accepted
    GUARD = 4  # stopped by a guard: app held, application limit, error budget
    STORAGE = 5  # the state directory or the run's directory failed
    STOPPED = 75  # stopped early, resumable
    ABORTED = 130  # second Ctrl-C


FINISHED: Final = frozenset({Exit.OK, Exit.NOT_ALL_ACCEPTED})
"""How a run ends that has sent everything."""

CUT_SHORT: Final = frozenset({Exit.GUARD, Exit.STORAGE, Exit.STOPPED, Exit.ABORTED})
"""How one ends that has not."""


def exit_of(error: SendEngineError) -> Exit:
    """Say in which exit code an expected error ends."""
    match error:
        case SettingsError() | InputError() | InvalidJobError() | KeyReusedError():
            return Exit.USAGE
        case AppHeldError():
            return Exit.GUARD
        case StorageError():
            return Exit.STORAGE
    return Exit.INTERNAL
