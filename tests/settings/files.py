"""Settings files for tests, and what is said of those that are wrong."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from sendengine.errors import SettingsError
from sendengine.settings import SettingValue, load_settings

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
SMALLEST = f'[apps.shop]\napp_id = "{APP_ID}"\napi_key = "$ONESIGNAL_API_KEY"\n'
NO_ENVIRONMENT: Mapping[str, str] = {}


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def error_of(
    path: Path | None,
    *,
    environment: Mapping[str, str] = NO_ENVIRONMENT,
    overrides: Mapping[str, SettingValue] | None = None,
) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings(path, environment=environment, overrides=overrides)
    return str(caught.value)
