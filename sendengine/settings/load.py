"""Makes settings from their layers, and says of each key what counts and where it came from.

Precedence: flag before environment before file before default (`sendengine.settings.layers`).
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec import Struct
from msgspec.structs import fields

from sendengine.errors import SettingsError
from sendengine.settings.kinds import FieldError, field_kinds, is_table, table_in, table_of_each
from sendengine.settings.layers import DEFAULT_FILE, Key, Layers, SettingValue, Source, merged, spelled
from sendengine.settings.model import Settings, masked

_Table = TypeVar("_Table", bound=Struct)


@dataclass(frozen=True, slots=True)
class EffectiveSetting:
    """A key with the value that counts, as it may be shown, and where that came from.

    ``place`` names the file or the environment variable; it is empty for a default.
    """

    key: str
    value: object
    source: Source
    place: str


def load_settings(
    path: str | Path | None = DEFAULT_FILE,
    *,
    overrides: Mapping[str, SettingValue] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Settings:
    """Read the settings file, and lay the environment and ``overrides`` (``{"transport.timeout_s": 30}``) over it.

    ``path`` None reads no file; nor does the default one where it is not there and the environment or
    ``overrides`` configure an app. Raises SettingsError, which names the key, its place, what is wrong and how to
    mend it. The apps' API keys are not read yet: see `read_key`.
    """
    return _settings(merged(path, overrides or {}, environment), path)


def effective(
    path: str | Path | None = DEFAULT_FILE,
    *,
    overrides: Mapping[str, SettingValue] | None = None,
    environment: Mapping[str, str] = os.environ,
) -> tuple[EffectiveSetting, ...]:
    """Every key with its effective value and where that came from; API keys and passwords are masked.

    Raises SettingsError as `load_settings` does.
    """
    layers = merged(path, overrides or {}, environment)
    return tuple(_listed(_settings(layers, path), layers, ()))


def _settings(layers: Layers, path: str | Path | None) -> Settings:
    return _made(Settings, (), layers, f"in {path}" if path is not None else "in the settings")


def _made(table: type[_Table], above: Key, layers: Layers, place: str) -> _Table:
    arguments: dict[str, object] = {}
    for name, kind in field_kinds(table).items():
        key = (*above, name)
        if entry := table_of_each(kind):
            names = sorted({found[len(key)] for found in layers if found[: len(key)] == key})
            arguments[name] = {each: _made(entry, (*key, each), layers, place) for each in names}
        elif inner := table_in(kind):
            if is_table(kind) or any(found[: len(key)] == key for found in layers):
                arguments[name] = _made(inner, key, layers, place)
        elif key in layers:
            arguments[name] = layers[key].value
    for info in fields(table):
        if info.required and info.name not in arguments:
            raise SettingsError(
                f"{spelled((*above, info.name))} {place}: missing; give {spelled(above)} its {info.name}"
            )
    try:
        return table(**arguments)
    except FieldError as error:
        key = (*above, error.field)
        place = layers[key].place if key in layers else place
        raise SettingsError(f"{spelled(key)} {place}: {error.problem}") from None


def _listed(table: Struct, layers: Layers, above: Key) -> Iterator[EffectiveSetting]:
    for name in table.__struct_fields__:
        key, value = (*above, name), getattr(table, name)
        if isinstance(value, Struct):
            yield from _listed(value, layers, key)
        elif isinstance(value, Mapping):
            for each, inner in value.items():
                yield from _listed(inner, layers, (*key, each))
        else:
            entry = layers.get(key)
            source, place = (entry.source, entry.place) if entry else ("default", "")
            yield EffectiveSetting(spelled(key), masked(name, value), source, place)
