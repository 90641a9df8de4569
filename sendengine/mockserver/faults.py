"""Which request meets which fault: by chance (seeded), by window of time, or by count.

Units: seconds on one monotonic clock, handed in; a fault's own instants count from when the plan was made.
"""

from collections.abc import Sequence
from random import Random
from typing import Final, get_args

import msgspec

from sendengine.errors import SettingsError
from sendengine.mockserver.config import Fault, FaultKind, Lane, problem_in

_WITHOUT_EFFECT: frozenset[FaultKind] = frozenset(
    {"503", "503_text", "503_empty", "502_html", "500", "408", "403_html", "400", "404", "409", "429",
     "reset_before", "close_before", "refused_stream"},
)  # fmt: skip
KINDS: Final[tuple[FaultKind, ...]] = get_args(FaultKind)
_FIELDS: Final = tuple(name for name in Fault.__struct_fields__ if name != "kind")
_OUTAGES: frozenset[FaultKind] = frozenset({"outage_reset", "outage_refuse"})


def takes_effect(fault: Fault) -> bool:
    """Whether a request that meets the fault is carried out all the same."""
    return fault.effect if fault.effect is not None else fault.kind not in _WITHOUT_EFFECT


def parse_fault(text: str) -> Fault:
    """Read a fault as the command line has it: ``503:0.03``, or ``429,count=200,skip=1000,lane=create_notification``.

    The kind, its probability after a colon, and any other field by name. Raises SettingsError.
    """
    head, *rest = text.split(",")
    kind, _, probability = head.partition(":")
    if kind not in KINDS:
        raise SettingsError(f"fault {text!r}: there is no kind {kind!r}; there are {', '.join(KINDS)}")
    values: dict[str, str] = {"kind": kind}
    if probability:
        values["probability"] = probability
    for part in rest:
        name, equals, value = part.partition("=")
        if not equals or name.strip() not in _FIELDS:
            known = ", ".join(_FIELDS)
            raise SettingsError(f"fault {text!r}: {part!r} is not name=value, where name is one of {known}")
        values[name.strip()] = value.strip()
    try:
        return msgspec.convert(values, Fault, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"fault {text!r}: {problem_in(error)}") from None


class FaultPlan:
    """The faults in force, with what has become of each."""

    __slots__ = ("_made_s", "_outages", "_random", "_spells")

    def __init__(self, faults: Sequence[Fault], *, seed: int, now_s: float) -> None:
        self._made_s = now_s
        self._random = Random(seed)  # noqa: S311  # chance that must repeat, not a secret
        self._spells = [_Spell(fault) for fault in faults if fault.kind not in _OUTAGES]
        self._outages = [fault for fault in faults if fault.kind in _OUTAGES]

    def draw(self, lane: Lane, *, app_id: str, now_s: float) -> Fault | None:
        """Return the fault that a request meets, or None. A fault with a count counts it."""
        for spell in self._spells:
            if spell.meets(lane, app_id, now_s - self._made_s, self._random):
                return spell.fault
        return None

    def outage(self, now_s: float) -> Fault | None:
        """Return the outage that reigns, or None."""
        if not self._outages:
            return None
        second = now_s - self._made_s
        return next((fault for fault in self._outages if _reigns(fault, second)), None)

    def outage_edges(self) -> list[float]:
        """Return the instants at which an outage begins or ends."""
        edges = [fault.from_s for fault in self._outages]
        edges += [fault.until_s for fault in self._outages if fault.until_s is not None]
        return [self._made_s + second for second in edges]


class _Spell:
    """One fault, and how many requests it has spared and met."""

    __slots__ = ("_met", "_spared", "fault")

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self._spared = 0
        self._met = 0

    def meets(self, lane: Lane, app_id: str, second: float, chance: Random) -> bool:
        fault = self.fault
        if fault.lane not in {None, lane} or fault.app not in {None, app_id} or not _reigns(fault, second):
            return False
        if self._spared < fault.skip:
            self._spared += 1
            return False
        if fault.count is not None and self._met >= fault.count:
            return False
        if fault.probability < 1 and chance.random() >= fault.probability:
            return False
        self._met += 1
        return True


def _reigns(fault: Fault, second: float) -> bool:
    return fault.from_s <= second and (fault.until_s is None or second < fault.until_s)
