"""Settings: TOML and environment, frozen and checked, every error naming its key.

Units: ``_s`` seconds, ``_ms`` milliseconds, ``_bytes`` bytes; ceilings are requests a second.
"""

from sendengine.settings.keys import key_source, read_key, read_keys
from sendengine.settings.layers import DEFAULT_FILE, SettingValue
from sendengine.settings.load import EffectiveSetting, effective, load_settings
from sendengine.settings.model import (
    AppSettings,
    BatchingSettings,
    BenchSettings,
    CeilingSettings,
    IntakeSettings,
    JournalSettings,
    RetrySettings,
    Settings,
    StoppingSettings,
    TransportSettings,
)

__all__ = [
    "DEFAULT_FILE",
    "AppSettings",
    "BatchingSettings",
    "BenchSettings",
    "CeilingSettings",
    "EffectiveSetting",
    "IntakeSettings",
    "JournalSettings",
    "RetrySettings",
    "SettingValue",
    "Settings",
    "StoppingSettings",
    "TransportSettings",
    "effective",
    "key_source",
    "load_settings",
    "read_key",
    "read_keys",
]
