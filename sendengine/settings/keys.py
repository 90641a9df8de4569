"""Reads an app's API key from where the settings say that it is, and never shows it.

A key is read when it is needed, so that it need not stand in a file beside the settings, and so that a changed one
is found by reading again.

Units: ``_s`` is seconds.
"""

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from sendengine.errors import SettingsError
from sendengine.settings.kinds import NO_HOME
from sendengine.settings.model import AppSettings, key_variable, unkeyed

_COMMAND_TIMEOUT_S: Final = 30.0
_LONGEST_KEY_BYTES: Final = 4096


def read_key(app: AppSettings, *, environment: Mapping[str, str] = os.environ) -> str:
    """Return the app's API key, without the white space around it.

    Raises SettingsError where it cannot be had or cannot be a key; the text names the source and never the key.
    Blocks while ``api_key_command`` runs, at most 30 s: on an event loop, call it in a thread.
    """
    key, source = _key_and_source(app, environment)
    key = key.strip()
    if not key:
        raise SettingsError(f"{source} holds no key; put the app's API key there")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            f"{source} holds more than a key: a key is one line of ASCII letters, digits and signs, without spaces"
        )
    return key


def read_keys(apps: Mapping[str, AppSettings]) -> dict[str, str]:
    """Return the API key of every app, as `read_key` does; what it raises names the app."""
    keys = {}
    for name, app in apps.items():
        try:
            keys[name] = read_key(app)
        except SettingsError as error:
            raise SettingsError(f"apps.{name}: {error}") from None
    return keys


def key_source(app: AppSettings) -> str:
    """Say where the app's key comes from, for a person."""
    if (variable := key_variable(app)) is not None:
        return f"api_key, the environment variable {unkeyed(variable)},"
    if app.api_key_file is not None:
        return f"api_key_file, {unkeyed(app.api_key_file)},"
    return "api_key" if app.api_key is not None else "api_key_command"


def _key_and_source(app: AppSettings, environment: Mapping[str, str]) -> tuple[str, str]:
    source = key_source(app)
    if (variable := key_variable(app)) is not None:
        if variable not in environment:
            raise SettingsError(
                f"api_key: the environment variable {unkeyed(variable)} is not set; export it, or correct its name"
            )
        return environment[variable], source
    if app.api_key_file is not None:
        return _from_file(app.api_key_file), source
    if app.api_key_command is not None:
        return _from_command(app.api_key_command), source
    return app.api_key or "", source


def _from_file(name: str) -> str:
    try:
        with Path(name).expanduser().open(encoding="ascii", errors="replace") as file:
            return file.read(_LONGEST_KEY_BYTES)
    except OSError as error:
        raise SettingsError(f"api_key_file: {unkeyed(name)} cannot be read: {error.strerror}") from None
    except RuntimeError:
        raise SettingsError(f"api_key_file: {NO_HOME}, got {unkeyed(name)!r}") from None


def _from_command(command: str) -> str:
    try:
        words = shlex.split(command)
        done = subprocess.run(  # noqa: S603 - the person who writes the settings chooses the command; no shell reads it
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False
        )
    except ValueError:
        raise SettingsError("api_key_command: its quotes do not pair; write it as in a shell") from None
    except OSError as error:
        raise SettingsError(f"api_key_command: {unkeyed(words[0])!r} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SettingsError(
            f"api_key_command: no answer within {_COMMAND_TIMEOUT_S:.0f} s; it cannot ask questions, so sign in first"
        ) from None
    if done.returncode:
        raise SettingsError(
            f"api_key_command: ended with status {done.returncode}; run it by hand to see why (its output is not shown)"
        )
    return done.stdout.decode("ascii", errors="replace")
