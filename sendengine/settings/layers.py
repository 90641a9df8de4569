"""The layers of the settings: file, environment and flags, each flattened to keys with their place.

An environment variable is ``SENDENGINE_`` and the key in capitals, tables divided by two underscores:
``SENDENGINE_TRANSPORT__MAX_CONNECTIONS=1000``, ``SENDENGINE_APPS__SHOP__PLAN=paid``, ``SENDENGINE_STATE_DIR=/x``; an
app's ``-`` is written ``_``, and lists are separated by commas. Relative paths in a file are relative to that
file, elsewhere to the working directory.
"""

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final, Literal, TypeAlias

from msgspec import Struct

from sendengine.core.spelling import mend
from sendengine.errors import SettingsError
from sendengine.settings.kinds import NO_HOME, FieldError, field_kinds, parse, table_in, table_of_each
from sendengine.settings.model import KEY_SOURCES, STATE_DIR, Settings

DEFAULT_FILE: Final = "sendengine.toml"
PREFIX: Final = "SENDENGINE_"

SettingValue: TypeAlias = str | int | float | bool | Path | Sequence[str]
Source: TypeAlias = Literal["default", "file", "environment", "flag"]
Key: TypeAlias = tuple[str, ...]

# What Kubernetes puts into the environment of every pod beside a service whose name starts with "sendengine".
_SERVICE_LINK: Final = re.compile(r"(.*_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_\w+)?)?)")
_PATHS: Final = frozenset({"state_dir", "api_key_file", "ca_file"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What one layer says about one key, and where."""

    value: object
    source: Source
    place: str


Layers: TypeAlias = dict[Key, Entry]


def spelled(key: Key) -> str:
    """Write a key as files and errors do: ``apps.shop.plan``."""
    return ".".join(key)


def merged(path: str | Path | None, overrides: Mapping[str, SettingValue], environment: Mapping[str, str]) -> Layers:
    """Lay flags over the environment over the file; raises SettingsError for a key that is unknown or unreadable."""
    layers: Layers = {}
    if path is not None:
        layers |= _from_file(Path(path), is_needed=not _configures_app(overrides, environment))
    apps = {key[1] for key in layers if key[0] == "apps"}
    for above in (_from_environment(environment, apps), _from_overrides(overrides)):
        layers = _without_replaced_key_sources(layers, above) | above
    return layers


def _without_replaced_key_sources(layers: Layers, above: Layers) -> Layers:
    """Drop an app's source of its key where a layer above names another one; both together would be an error."""
    replaced = {key[:-1] for key in above if key[-1] in KEY_SOURCES}
    return {key: entry for key, entry in layers.items() if key[-1] not in KEY_SOURCES or key[:-1] not in replaced}


def _configures_app(overrides: Mapping[str, SettingValue], environment: Mapping[str, str]) -> bool:
    return any(key.startswith("apps.") for key in overrides) or any(
        name.startswith(f"{PREFIX}APPS__") for name in environment
    )


def _from_file(path: Path, *, is_needed: bool) -> Layers:
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        if not is_needed and path == Path(DEFAULT_FILE):
            return {}
        raise SettingsError(
            f"{path}: there is no such file; write one with `sendengine init`, or name another with --config"
        ) from None
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(f"{path}: is not TOML: {error}; texts stand in quotes, tables in [brackets]") from None
    place, folder = f"in {path}", path.absolute().parent
    layers: Layers = {("state_dir",): Entry(folder / STATE_DIR, "default", "")}
    for name in _empty_tables(document):
        layers[name,] = Entry({}, "file", place)
    for key, value in _flattened(document, ()):
        if value == {}:
            _check_table(key, place)
            if key[0] == "apps" and len(key) > 1:
                layers[key[:2]] = Entry({}, "file", place)  # there is such an app, whatever else is said of it
            continue
        _table_of(key, place)
        layers[key] = Entry(_anchored(key, value, folder, place), "file", place)
    return layers


def _empty_tables(document: Mapping[str, object]) -> Iterator[str]:
    """Name the tables that need not be there, are, and say nothing: that they are there says something."""
    return (name for name, value in document.items() if value == {} and table_in(field_kinds(Settings).get(name)))


def _flattened(document: Mapping[str, object], above: Key) -> Iterator[tuple[Key, object]]:
    for name, value in document.items():
        if isinstance(value, dict) and value:
            yield from _flattened(value, (*above, name))
        else:
            yield (*above, name), value


def _anchored(key: Key, value: object, folder: Path, place: str) -> object:
    """Make a path of the file absolute; anything else stays as it is."""
    if key[-1] in _PATHS and isinstance(value, str) and value:
        try:
            return str(folder / Path(value).expanduser())
        except RuntimeError:
            raise SettingsError(f"{spelled(key)} {place}: {NO_HOME}, got {value!r}") from None
    return value


def _from_environment(environment: Mapping[str, str], apps: set[str]) -> Layers:
    layers: Layers = {}
    for variable in sorted(environment):
        rest = variable.removeprefix(PREFIX)
        if rest == variable or ("__" not in rest and _SERVICE_LINK.fullmatch(rest)):
            continue
        place = f"in the environment ({variable})"
        key = _with_app(tuple(rest.lower().split("__")), apps, place)
        layers[key] = Entry(_parsed(key, environment[variable], place), "environment", place)
    return layers


def _with_app(key: Key, apps: set[str], place: str) -> Key:
    """Give an app's name the spelling that it has in the file; a new app is named in small letters."""
    match key:
        case ("apps", name, *rest):
            named = sorted(app for app in apps if app.lower().replace("-", "_") == name)
            if len(named) > 1:
                raise SettingsError(f"apps {place}: stands for {' and '.join(named)}; rename one of them")
            return ("apps", *(named or [name]), *rest)
    return key


def _from_overrides(overrides: Mapping[str, SettingValue]) -> Layers:
    place = "from the command line or the caller"
    layers: Layers = {}
    for name, value in overrides.items():
        key = tuple(name.split("."))
        layers[key] = Entry(_parsed(key, value, place), "flag", place)
    return layers


def _parsed(key: Key, value: SettingValue, place: str) -> object:
    table = _table_of(key, place)
    if not isinstance(value, str):
        return value
    try:
        return parse(table, key[-1], value)
    except FieldError as error:
        raise SettingsError(f"{spelled(key)} {place}: {error.problem}") from None


def _check_table(key: Key, place: str) -> None:
    """Raise SettingsError where a table that says nothing is none that may be there."""
    _, kind = _found(key, place)
    if not (table_in(kind) or table_of_each(kind)):
        raise _no_table(key, place)


def _table_of(key: Key, place: str) -> type[Struct]:
    """Return the table of a key that has a value; raises SettingsError where there is no such key."""
    table, kind = _found(key, place)
    if table_of_each(kind):
        raise SettingsError(f"{spelled(key)} {place}: holds a table for each name, such as [{spelled(key)}.NAME]")
    if below := table_in(kind):
        known = ", ".join(field_kinds(below))
        raise SettingsError(f"{spelled(key)} {place}: is a table and has no value of its own; it has {known}")
    return table


def _found(key: Key, place: str) -> tuple[type[Struct], object]:
    """Find the table in which the key's last name stands, and the kind of what it names; raises SettingsError."""
    table: type[Struct] = Settings
    kind: object = Settings
    for depth, name in enumerate(key):
        if each := table_of_each(kind):
            kind = each
        elif inner := table_in(kind):
            table, kinds = inner, field_kinds(inner)
            if name not in kinds:
                raise _unknown(key[: depth + 1], kinds, place)
            kind = kinds[name]
        else:
            raise _no_table(key[:depth], place)
    return table, kind


def _no_table(key: Key, place: str) -> SettingsError:
    return SettingsError(f"{spelled(key)} {place}: is no table; give it a value")


def _unknown(key: Key, known: Iterable[str], place: str) -> SettingsError:
    where = f"[{spelled(key[:-1])}]" if len(key) > 1 else "the top of the settings"
    way = _homes().get(key[-1].lower()) or mend(key[-1], known, what=f"{where} has")
    return SettingsError(f"{spelled(key)} {place}: there is no such setting; {way}")


@cache
def _homes() -> Mapping[str, str]:
    """Where each name of the settings belongs: none stands in two tables."""
    return dict(_homes_in(Settings, ()))


def _homes_in(table: type[Struct], above: Key) -> Iterator[tuple[str, str]]:
    here = f"it belongs under [{spelled(above)}]" if above else "it belongs at the top, before every [table]"
    for name, kind in field_kinds(table).items():
        each, inner = table_of_each(kind), table_in(kind)
        if below := each or inner:
            key = (*above, name, "NAME") if each else (*above, name)
            yield name, f"it is written [{spelled(key)}]"
            yield from _homes_in(below, key)
        else:
            yield name, here
