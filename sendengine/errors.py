"""Everything that sendengine raises.

::

    SendEngineError
    ├── SettingsError            a setting is missing, unknown or out of range; names the key
    ├── InvalidJobError          a job asks for something impossible; names the field
    ├── InputError               a file that was to be sent has faults; lists them
    ├── IntakeFullError          the lane has no room, and waiting was not wanted or took too long
    ├── AppHeldError             OneSignal refused the app's key, or disabled the app
    ├── EngineClosedError        the engine is draining, stopped, or was never started
    ├── KeyReusedError           one idempotency key, two different bodies
    ├── SendFailedError          `SendEngine.send` did not end as Accepted; carries the outcome
    ├── StorageError             the state directory or a run's directory cannot be written
    └── TransportError           there was no usable reply
        ├── NotSentError         certainly not received: safe to send again at once
        └── ReplyLostError       perhaps received: only a repeat under the same key is safe
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sendengine.core.outcomes import Outcome


class SendEngineError(Exception):
    """The root of the tree: catch it to catch everything of ours."""


class SettingsError(SendEngineError):
    """A setting is missing, unknown or out of range; the text names the key, what is wrong and how to mend it."""


class InvalidJobError(SendEngineError, ValueError):
    """A job asks for something impossible, and was refused before anything was sent.

    ``field`` is the job's field at fault (``"tags.level"``), the text says what is wrong and how to mend it.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}"


class InputError(SendEngineError):
    """A file that was to be sent has faults; ``faults`` lists them, each with its line, field and reason."""

    def __init__(self, summary: str, *, faults: Sequence[str] = ()) -> None:
        super().__init__(summary)
        self.faults = tuple(faults)


class IntakeFullError(SendEngineError):
    """The lane's intake has no room for the job; it was not taken."""


class AppHeldError(SendEngineError):
    """The app is held: its key was refused, or OneSignal disabled it; the job was not taken."""


class EngineClosedError(SendEngineError):
    """The engine takes no work: it is draining, stopped, or was not entered with ``async with``."""


class KeyReusedError(SendEngineError):
    """An idempotency key came back with another body; OneSignal would have dropped the second silently."""


class StorageError(SendEngineError):
    """A directory or file that the engine keeps its state in cannot be read or written; the text names it."""


class SendFailedError(SendEngineError):
    """`SendEngine.send` ended in anything but Accepted; ``outcome`` says what."""

    def __init__(self, outcome: "Outcome") -> None:
        super().__init__(outcome)
        self.outcome = outcome


class TransportError(SendEngineError):
    """There was no usable reply to a request."""


class NotSentError(TransportError):
    """The request was certainly not received: the connection failed, or the server refused the stream."""


class ReplyLostError(TransportError):
    """The request may have been received and carried out, and its reply did not arrive whole."""
