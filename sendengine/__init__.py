"""Send through OneSignal's REST API as fast as its documented ceilings allow, and never faster."""

from importlib.metadata import version

from sendengine.core.jobs import CreateNotification, Job, UpdateUser
from sendengine.core.outcomes import (
    Abandoned,
    Accepted,
    Ambiguous,
    Expired,
    GaveUp,
    Outcome,
    Rejected,
    Unreachable,
)
from sendengine.core.targets import (
    Target,
    alias,
    email,
    external_id,
    filters,
    onesignal_id,
    phone_number,
    segments,
    subscription_id,
)
from sendengine.engine import Health, Receipt, SendEngine
from sendengine.errors import (
    AppHeldError,
    EngineClosedError,
    InputError,
    IntakeFullError,
    InvalidJobError,
    KeyReusedError,
    NotSentError,
    ReplyLostError,
    SendEngineError,
    SendFailedError,
    SettingsError,
    StorageError,
    TransportError,
)
from sendengine.ports import Observer, Part, RequestRecord, Transport
from sendengine.settings import AppSettings, Settings, load_settings
from sendengine.telemetry.allocator import tune_allocator
from sendengine.telemetry.collector import tune_collector
from sendengine.telemetry.snapshots import AppStats, EngineStats, LaneStats

__version__ = version("sendengine")

__all__ = [
    "Abandoned",
    "Accepted",
    "Ambiguous",
    "AppHeldError",
    "AppSettings",
    "AppStats",
    "CreateNotification",
    "EngineClosedError",
    "EngineStats",
    "Expired",
    "GaveUp",
    "Health",
    "InputError",
    "IntakeFullError",
    "InvalidJobError",
    "Job",
    "KeyReusedError",
    "LaneStats",
    "NotSentError",
    "Observer",
    "Outcome",
    "Part",
    "Receipt",
    "Rejected",
    "ReplyLostError",
    "RequestRecord",
    "SendEngine",
    "SendEngineError",
    "SendFailedError",
    "Settings",
    "SettingsError",
    "StorageError",
    "Target",
    "Transport",
    "TransportError",
    "Unreachable",
    "UpdateUser",
    "__version__",
    "alias",
    "email",
    "external_id",
    "filters",
    "load_settings",
    "onesignal_id",
    "phone_number",
    "segments",
    "subscription_id",
    "tune_allocator",
    "tune_collector",
]
