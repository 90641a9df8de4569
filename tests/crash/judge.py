"""What the mock server's ledger says about everything that was promised, whoever died on the way.

Lost 0, doubled 0, the order per user kept, deltas at most once.
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
from msgspec import Struct

from sendengine.mockserver import MockServer
from tests.crash.embedded import NOTES
from tests.crash.inputs import APP_ID, CANARY, Line, is_update, recipients_of, user_of
from tests.support.mocked import assert_clean

_UNCERTAIN = {"ambiguous", "gave_up"}


class Known(Struct, frozen=True):
    """Which lines of an input must be sent, which may have been, and what callers were told of any of them."""

    certain: Collection[int]
    perhaps: Collection[int]
    told: Mapping[int, Sequence[str]]


def all_of(lines: Sequence[Line], told: Mapping[int, Sequence[str]] | None = None) -> Known:
    """Everything in a file is promised."""
    return Known(range(len(lines)), (), told or {})


def noted(folder: Path) -> Known:
    """What an embedded program was promised, by its notebook."""
    intended: set[int] = set()
    promised: set[int] = set()
    told: dict[int, list[str]] = defaultdict(list)
    for line in (folder / NOTES).read_text().splitlines():
        match line.split():
            case ["intend", number]:
                intended.add(int(number))
            case ["promise", number]:
                promised.add(int(number))
            case ["settle", number, outcome]:
                told[int(number)].append(outcome)
    return Known(promised, intended - promised, told)


def judge(server: MockServer, lines: Sequence[Line], known: Known, *, kills: int) -> None:
    """Hold what was promised against what took effect."""
    found = server.summary()
    assert_clean(found)
    _judge_notifications(server, lines, known)
    _judge_updates(server, lines, known, kills=kills)
    _judge_what_was_told(lines, known)


def _judge_notifications(server: MockServer, lines: Sequence[Line], known: Known) -> None:
    reached = deliveries(server)
    certain = {item for number in known.certain for item in _people(lines[number])}
    perhaps = {item for number in known.perhaps for item in _people(lines[number])}
    assert_nobody(certain - reached.keys(), "lost")
    assert_nobody((item for item, count in reached.items() if count > 1), "reached twice")
    assert_nobody(reached.keys() - certain - perhaps, "reached, and nobody asked for it")


def deliveries(server: MockServer) -> Counter[str]:
    """How often each recipient was reached."""
    found = server.ledger.messages.deliveries(APP_ID)
    return Counter({name.removeprefix("external_id:"): count for name, count in found.items()})


def assert_nobody(people: Iterable[str], what: str) -> None:
    found = sorted(people)
    assert not found, f"{len(found)} {what}: {found[:10]}"


def _people(line: Line) -> list[str]:
    return [] if is_update(line) else [item for item in recipients_of(line) if not item.startswith("bad")]


def _judge_updates(server: MockServer, lines: Sequence[Line], known: Known, *, kills: int) -> None:
    jobs: dict[str, list[int]] = defaultdict(list)
    for number in sorted({*known.certain, *known.perhaps}):
        if is_update(lines[number]):
            jobs[user_of(lines[number])].append(number)
    for user, numbers in jobs.items():
        bodies = updates_of(server, user)
        applied = {number for body in bodies for number in _tagged(body)}
        lost = [number for number in numbers if number in known.certain and number not in applied]
        assert not lost, f"updates of {user} were lost: {lost} of {numbers}"
        assert applied <= set(numbers), user
        _judge_order(user, [sorted({*_tagged(body), *_bought(body)}) for body in bodies], kills=kills)
        level = _level(server, user)
        assert level == (str(max(applied)) if applied else None), f"{user} ended at {level}: {bodies}"
        _judge_deltas(user, bodies, lines, numbers, known)


def updates_of(server: MockServer, user: str) -> list[dict[str, Any]]:
    """The bodies of the updates of a user, in the order in which they took effect."""
    app = server.world.app(APP_ID)
    assert app is not None
    profile = app.profiles.find("external_id", user)
    return [] if profile is None else [orjson.loads(body) for body in profile.updates]


def _judge_order(user: str, carried: list[list[int]], *, kills: int) -> None:
    """Updates take effect in their order; what a killed process had on the wire may go once more, with what follows."""
    firsts: list[int] = []
    for request in carried:
        firsts += [number for number in request if number not in firsts]
    assert firsts == sorted(firsts), f"updates of {user} took effect in the order {carried}"
    dips = sum(max(request) < max(before) for before, request in pairwise(carried))
    assert dips <= kills, f"updates of {user} went again and again: {carried}"


def _judge_deltas(
    user: str, bodies: list[dict[str, Any]], lines: Sequence[Line], numbers: Iterable[int], known: Known
) -> None:
    bought = Counter(number for body in bodies for number in _bought(body))
    assert not [number for number, count in bought.items() if count > 1], f"deltas of {user} doubled: {bought}"
    for number in numbers:
        if "deltas" in lines[number] and number in known.certain and not _UNCERTAIN & set(known.told.get(number, ())):
            assert bought[number] == 1, f"the delta of {number} of {user} was lost; {known.told.get(number)}"


def _judge_what_was_told(lines: Sequence[Line], known: Known) -> None:
    """Whoever waits hears it again where the settlement was lost with its process, and hears the same."""
    for number, outcomes in known.told.items():
        line = lines[number]
        wanted = {"accepted", "abandoned"}  # by a process whose disk failed; a later one sends it
        if is_update(line):
            wanted |= {"ambiguous"} if "deltas" in line else set()
        elif any(item.startswith("bad") for item in recipients_of(line)):
            wanted = {"rejected", "abandoned"}
        assert set(outcomes) <= wanted, f"job {number} was told to be {outcomes}: {line}"


def _tagged(body: dict[str, Any]) -> list[int]:
    """The jobs whose tags an update carries."""
    return [int(name[1:]) for name in body.get("properties", {}).get("tags", {}) if name.startswith("j")]


def _bought(body: dict[str, Any]) -> list[int]:
    """The jobs whose deltas it carries."""
    return [int(purchase["sku"][1:]) for purchase in body.get("deltas", {}).get("purchases", [])]


def _level(server: MockServer, user: str) -> str | None:
    app = server.world.app(APP_ID)
    assert app is not None
    profile = app.profiles.find("external_id", user)
    return None if profile is None else profile.tags.get("level")


def assert_no_secret(folder: Path) -> None:
    """The key stands nowhere, and what is in the folders of the journal is its owner's alone."""
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "sendengine.toml":
            assert CANARY.encode() not in path.read_bytes(), path
