"""What the server knows: settings, apps, ledger, faults and latency; and how they change while it runs.

Units: instants are seconds since the server started or was reset.
"""

from collections.abc import Callable

from sendengine.mockserver.apps import App
from sendengine.mockserver.config import AppConfig, MockConfig, checked
from sendengine.mockserver.faults import FaultPlan
from sendengine.mockserver.latency import Latency
from sendengine.mockserver.ledger import Ledger

_MS = 1000


class World:
    """The state of the mocked OneSignal. ``clock`` is the running loop's ``time``."""

    __slots__ = (
        "_clock",
        "_configured_s",
        "_generation",
        "_started_s",
        "apps",
        "config",
        "faults",
        "latency",
        "ledger",
    )

    def __init__(self, config: MockConfig, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._generation = 0
        self.config = checked(config)
        self.reset()

    def now_s(self) -> float:
        """Seconds since the server started or was reset."""
        return self._clock() - self._started_s

    def reset(self) -> None:
        """Begin anew: an empty ledger, full limits, no users, no keys, enabled apps, faults from their start."""
        self._started_s = self._clock()
        self._configured_s = 0.0
        self._generation += 1
        config = self.config
        self.apps: dict[str, App] = {}
        self.ledger = Ledger(grace_s=config.hold_grace_ms / _MS, generation=self._generation)
        self.faults = FaultPlan(config.faults, seed=config.seed, now_s=0.0)
        self.latency = _latency(config)

    def app(self, app_id: str) -> App | None:
        """Return an app, made at its first request; None where it is not listed and only listed ones are taken."""
        app = self.apps.get(app_id)
        if app is None:
            config = self._config_of(app_id)
            if config is None:
                return None
            app = self.apps[app_id] = App(app_id, config, self.config, now_s=self._configured_s)
        return app

    def configure(self, config: MockConfig) -> None:
        """Go on under other settings; what they leave as it is keeps its state. Raises SettingsError."""
        config, was = checked(config), self.config
        self.config = config
        now_s = self._configured_s = self.now_s()
        for app_id in list(self.apps):
            app_config = self._config_of(app_id)
            if app_config is None:
                del self.apps[app_id]
            else:
                self.apps[app_id].configure(app_config, config, was=was, now_s=now_s)
        self.ledger.allow(config.hold_grace_ms / _MS)
        if (config.faults, config.seed) != (was.faults, was.seed):
            self.faults = FaultPlan(config.faults, seed=config.seed, now_s=now_s)
        if _latency_of(config) != _latency_of(was):
            self.latency = _latency(config)

    def _config_of(self, app_id: str) -> AppConfig | None:
        config = self.config.apps.get(app_id)
        return config if config is not None or self.config.strict_apps else self.config.default


def _latency_of(config: MockConfig) -> tuple[float, float, int]:
    return config.latency_ms, config.latency_p99_ms, config.seed


def _latency(config: MockConfig) -> Latency:
    return Latency(median_ms=config.latency_ms, p99_ms=config.latency_p99_ms, seed=config.seed)
