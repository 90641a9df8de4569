"""The kinds of values that settings have: each with its range, and the words that an error says about it.

The range and the words of a kind stand in one place, in its ``Meta``; every bound is finite, so that no setting is
infinite or not a number.

Units: as the alias says; rates are requests a second.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Final, Literal, TypeAlias, TypeGuard, Union, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct, ValidationError, convert
from msgspec.structs import force_setattr

from sendengine.core.onesignal import MAX_MODIFICATIONS, RECIPIENT_CAP_HIGHEST
from sendengine.errors import SettingsError

_UUID: Final = "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
_DAY_S: Final = 86_400
_LONGEST_SHOWN: Final = 60

AppId: TypeAlias = Annotated[
    str,
    Meta(
        pattern=_UUID,
        description="a UUID such as 8250eaf6-1a58-489e-b136-7c74a864b434: Settings > Keys & IDs of the app",
    ),
]
Text: TypeAlias = Annotated[str, Meta(min_length=1, description="a text that is not empty")]
FileName: TypeAlias = Annotated[str, Meta(pattern=r"^[^\0]+$", description="the path of a file")]
Command: TypeAlias = Annotated[
    str, Meta(pattern=r"^[^\0]*[^\s\0][^\0]*$", description='a command such as "pass show onesignal/shop"')
]
Share: TypeAlias = Annotated[float, Meta(gt=0, le=1, description="a number above 0 and at most 1")]
Rate: TypeAlias = Annotated[float, Meta(gt=0, le=1e9, description="a number of requests a second, above 0")]
Factor: TypeAlias = Annotated[float, Meta(gt=0, le=20, description="a number above 0 and at most 20")]
Count: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000_000_000, description="a whole number from 1 up")]
Connections: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1,000,000")]
Recipients: TypeAlias = Annotated[
    int, Meta(ge=1, le=RECIPIENT_CAP_HIGHEST, description=f"a whole number from 1 to {RECIPIENT_CAP_HIGHEST:,}")
]
Modifications: TypeAlias = Annotated[
    int, Meta(ge=1, le=MAX_MODIFICATIONS, description=f"a whole number from 1 to {MAX_MODIFICATIONS}")
]
RequestBytes: TypeAlias = Annotated[
    int, Meta(ge=1000, le=100_000_000, description="a whole number of bytes from 1,000 to 100,000,000")
]
Milliseconds: TypeAlias = Annotated[
    float, Meta(ge=0, le=60_000, description="a number of milliseconds from 0 to 60,000")
]
Timeout: TypeAlias = Annotated[float, Meta(gt=0, le=3600, description="a number of seconds above 0 and at most 3,600")]
Wait: TypeAlias = Annotated[
    float, Meta(ge=0, le=30 * _DAY_S, description="a number of seconds from 0 to 2,592,000 (30 days)")
]
Age: TypeAlias = Annotated[
    float, Meta(ge=0, le=366 * _DAY_S, description="a number of seconds from 0 to 31,622,400 (366 days)")
]
Recipient: TypeAlias = Annotated[
    str, Meta(pattern=r"^[^:\s][^:]*:.*\S", description='"kind:id" such as "external_id:qa-1"')
]
BenchAddress: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$",
        description='a host, or a host and a port, such as "test.example:8080"',
    ),
]

SECRET: Final = frozenset({"api_key", "api_key_command", "app_id", "proxy"})
"""Fields whose wrong values no error shows: they hold a key, or are where one is pasted by mistake."""


KEY_START: Final = "os_v2_"
"""How OneSignal's keys begin: what holds it is not shown, wherever it was pasted."""

NO_HOME: Final = "there is no home directory for its ~ here; write the whole path"


class FieldError(SettingsError):
    """A field of a settings table is wrong; ``field`` names it, ``problem`` says what is wrong and how to mend it."""

    def __init__(self, table: str, field: str, problem: str) -> None:
        super().__init__(table, field, problem)
        self.table = table
        self.field = field
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.table}.{self.field}: {self.problem}"


@cache
def field_kinds(table: type[Struct]) -> Mapping[str, object]:
    """Return the kind of each field of a table, in the order in which they stand."""
    return get_type_hints(table, include_extras=True)


def is_table(kind: object) -> TypeGuard[type[Struct]]:
    """Whether a kind is a table of settings of its own."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def table_in(kind: object) -> type[Struct] | None:
    """Return the table that a kind is, where it must or may be there; None for another kind."""
    if is_table(kind):
        return kind
    return next(filter(is_table, get_args(kind)), None) if get_origin(kind) in {Union, UnionType} else None


def table_of_each(kind: object) -> type[Struct] | None:
    """Return the table that each entry of a table of tables is (``[apps.NAME]``), or None for another kind."""
    if get_origin(kind) is not Mapping:
        return None
    inner = get_args(kind)[1]
    return inner if is_table(inner) else None


def check_fields(table: Struct) -> None:
    """Check each field against its kind, and bring whole numbers, lists and paths into it; raises FieldError."""
    for name, kind in field_kinds(type(table)).items():
        value = getattr(table, name)
        if table_in(kind) or table_of_each(kind):
            _check_tables(table, name, kind)
            continue
        try:
            kept = convert(value, kind, dec_hook=_as_path)
        except ValidationError:
            raise FieldError(type(table).__name__, name, wrong(name, value, kind)) from None
        force_setattr(table, name, kept)


def parse(table: type[Struct], name: str, text: str) -> object:
    """Read a field from text, as the environment gives it: lists are separated by commas; raises FieldError."""
    kind = field_kinds(table)[name]
    value = [part.strip() for part in text.split(",") if part.strip()] if get_origin(kind) is tuple else text
    try:
        kept: object = convert(value, kind, strict=False, dec_hook=_as_path)
    except ValidationError:
        raise FieldError(table.__name__, name, wrong(name, text, kind)) from None
    return kept


def wrong(name: str, value: object, kind: object) -> str:
    """Say what a field must be, and what it is where that can be shown."""
    words = f"must be {describe(kind)}"
    if name in SECRET or KEY_START in str(value):
        return f"{words}; what stands there is not shown"
    shown = repr(value)
    return f"{words}, got {shown[:_LONGEST_SHOWN]}{'…' if len(shown) > _LONGEST_SHOWN else ''}"


def describe(kind: object) -> str:
    """Say in words what values a kind has."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return str(args[1].description)
    if origin is Literal:
        return " or ".join(f'"{value}"' for value in args)
    if origin is tuple:
        return f"a list of {describe(args[0])}"
    if origin in {Union, UnionType}:
        return " or ".join(describe(inner) for inner in args if inner is not type(None))
    return {bool: "true or false", Path: "a path"}[kind] if kind in {bool, Path} else str(kind)


def _check_tables(table: Struct, name: str, kind: object) -> None:
    value, inner, single = getattr(table, name), table_of_each(kind), table_in(kind)
    if single is not None:
        is_right = isinstance(value, single) or (value is None and single is not kind)
        wanted, got = single.__name__, type(value).__name__
    elif isinstance(value, Mapping) and inner is not None:
        kinds = sorted({type(each).__name__ for each in value.values()})
        wanted, is_right, got = inner.__name__, kinds in ([], [inner.__name__]), f"a dict of {', '.join(kinds)}"
    else:
        wanted, is_right, got = f"{inner and inner.__name__} by name", False, type(value).__name__
    if not is_right:
        raise FieldError(type(table).__name__, name, f"must be a table of {wanted}, got {got}")


def _as_path(kind: type, value: object) -> Path:
    if kind is Path and isinstance(value, (str, Path)) and value != "" and "\0" not in str(value):
        return Path(value)
    raise ValueError(value)
