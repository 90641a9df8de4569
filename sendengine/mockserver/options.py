"""The settings as options of a command line: one for each switch, with its help and default.

``options()`` lists them; whoever parses a command line hands the values that were given to `config_from`.
Options of ``default`` (the app that any app id gets) and of its lanes stand beside those of the server:
``--plan``, ``--create-notification-rate``.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct, inspect

from sendengine.errors import SettingsError
from sendengine.mockserver.config import LANES, MockConfig, patched
from sendengine.mockserver.faults import parse_fault

OptionKind = Literal["flag", "int", "float", "text", "choice", "steps", "fault"]
OptionValue = bool | float | str | Sequence[str] | None

_STEPS: Final = frozenset({"schedule", "foreign_schedule"})
_PLAIN: Final[tuple[tuple[type[inspect.Type], OptionKind], ...]] = (
    (inspect.BoolType, "flag"),
    (inspect.IntType, "int"),
    (inspect.FloatType, "float"),
    (inspect.StrType, "text"),
)


class Option(Struct, frozen=True):
    """One switch. ``name`` is ``--latency-ms``; ``many`` options may be given several times.

    A text of ``steps`` is ``0=0.2,30=0.8`` (from each second on, a share), one of ``fault`` is as `parse_fault` has it.
    ``default`` is None where nothing is set.
    """

    name: str
    path: tuple[str, ...]
    kind: OptionKind
    help: str
    default: object
    choices: tuple[str, ...] = ()
    many: bool = False


def options() -> tuple[Option, ...]:
    """Return every switch, the server's first, then the default app's and its lanes'."""
    fault = Option(
        "--fault",
        ("faults",),
        "fault",
        "What goes wrong: 503:0.03, or 429,count=200,skip=1000.",
        (),
        many=True,
    )
    return (*_walk(MockConfig(), ()), fault)


def config_from(values: Mapping[str, OptionValue], *, base: MockConfig | None = None) -> MockConfig:
    """Make settings of the options that were given: their values by name, None where one was not given.

    ``base`` holds what they change. Raises SettingsError, which names the field.
    """
    known = {option.name: option for option in options()}
    patch: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"mock server: no option {name}")
        if value is not None:
            _put(patch, known[name].path, _value(known[name], value))
    return patched(base or MockConfig(), patch, strict=False)


def _walk(config: Struct, path: tuple[str, ...]) -> Iterator[Option]:
    for field in inspect.type_info(type(config)).fields:  # type: ignore[attr-defined]  # a Struct's type info has fields
        default = getattr(config, field.name)
        here = (*path, field.name)
        if field.name in {"apps", "faults"}:
            continue
        if isinstance(default, Struct):
            yield from _walk(default, here)
        else:
            yield _option(here, field.type, default)


def _option(path: tuple[str, ...], kind: inspect.Type, default: object) -> Option:
    about = ""
    while isinstance(kind, inspect.Metadata):
        about = about or str((kind.extra_json_schema or {}).get("description", ""))
        kind = kind.type
    words = [part for part in path if part != "default"]
    name = f"--{'-'.join(words).replace('_', '-')}"
    if words[0] in LANES:
        about = f"{words[0]}: {about}"
    if words[-1] in _STEPS:
        return Option(name, path, "steps", about, default)
    inner, many = _inner(kind)
    shown = tuple(default) if isinstance(default, (tuple, frozenset)) else default
    if isinstance(inner, inspect.LiteralType):
        return Option(name, path, "choice", about, shown, tuple(map(str, inner.values)), many)
    plain = next(plain for known, plain in _PLAIN if isinstance(inner, known))
    return Option(name, path, plain, about, shown, many=many)


def _inner(kind: inspect.Type) -> tuple[inspect.Type, bool]:
    """Return what a list holds, or what an optional value is, and whether it is a list."""
    if isinstance(kind, inspect.UnionType):
        return _inner(next(part for part in kind.types if not isinstance(part, inspect.NoneType)))
    if isinstance(kind, inspect.Metadata):
        return _inner(kind.type)
    if isinstance(kind, (inspect.VarTupleType, inspect.FrozenSetType)):
        return _inner(kind.item_type)[0], True
    return kind, False


def _value(option: Option, value: OptionValue) -> object:
    if option.kind == "fault":
        texts = [value] if isinstance(value, str) else value if isinstance(value, Sequence) else []
        return [msgspec.to_builtins(parse_fault(text)) for text in texts]
    if option.kind == "steps":
        return [_step(option.name, part) for part in str(value).split(",")]
    if option.kind == "choice" and not option.many and isinstance(option.default, int):
        return int(str(value))
    return list(value) if isinstance(value, (tuple, list)) else value


def _step(name: str, part: str) -> list[float]:
    second, _, share = part.partition("=")
    try:
        return [float(second), float(share)]
    except ValueError:
        raise SettingsError(f"mock server: {name}: {part!r} is not second=share, such as 30=0.8") from None


def _put(patch: dict[str, object], path: tuple[str, ...], value: object) -> None:
    *outer, last = path
    place = patch
    for name in outer:
        inner = place.setdefault(name, {})
        assert isinstance(inner, dict)  # noqa: S101  # for the type checker: paths of structs meet only in objects
        place = inner
    place[last] = value
