"""The last hundred attempts of a lane: says whether OneSignal is answering it.

An attempt is *answered* when its reply is anything but a server fault: 2xx, 4xx, 429 too. A transport error and
a `sendengine.core.verdicts.ServerFault` are not answers.

Units: ``_s`` is seconds on a monotonic clock, handed in.
"""

from typing import Final

SPAN: Final = 100  # attempts that are remembered
_MASK: Final = (1 << SPAN) - 1


class AnswerWindow:
    """Which of a lane's last hundred attempts were answered. Starts empty, and an empty window answers nothing."""

    __slots__ = ("_answered", "_answered_at_s", "_attempts")

    def __init__(self) -> None:
        self._answered = 0  # one bit an attempt, the newest lowest; set where it was answered
        self._attempts = 0
        self._answered_at_s: float | None = None

    def __repr__(self) -> str:
        return f"<AnswerWindow {self._answered.bit_count()} of {self._attempts} answered>"

    def note(self, *, answered: bool, now_s: float) -> None:
        """Take note of how one attempt ended."""
        self._answered = (self._answered << 1 | answered) & _MASK
        if self._attempts < SPAN:
            self._attempts += 1
        if answered:
            self._answered_at_s = now_s

    @property
    def is_answering(self) -> bool:
        """Whether half or more of the attempts were answered."""
        return self.is_answering_others(failures=0)

    def is_answering_others(self, *, failures: int) -> bool:
        """Leave out a request's own ``failures``: whether half or more of the rest of the lane was answered."""
        answered = self._answered.bit_count()
        return answered > 0 and 2 * answered >= self._attempts - failures

    def has_answered_since(self, instant_s: float) -> bool:
        """Whether an answer has come at ``instant_s`` or later."""
        return self._answered_at_s is not None and self._answered_at_s >= instant_s
