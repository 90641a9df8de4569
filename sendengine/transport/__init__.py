"""One request on the wire: every foreign exception is mapped here, and only here.

`open_transport` makes the transport that the settings name, `transport_opener` those of several apps; both are called
on a running event loop.
"""

from collections.abc import Callable

from sendengine.ports import Transport
from sendengine.settings import AppSettings, TransportSettings
from sendengine.transport.descriptors import bounded_connections
from sendengine.transport.direct import DirectTransport
from sendengine.transport.direct.bound import ConnectionBound
from sendengine.transport.session import AiohttpTransport

__all__ = [
    "AiohttpTransport",
    "ConnectionBound",
    "DirectTransport",
    "bounded_connections",
    "open_transport",
    "transport_opener",
]


def transport_opener(settings: TransportSettings) -> Callable[[AppSettings, str], Transport]:
    """Return what makes apps' transports as `open_transport` does, all under one bound on connections."""
    bound = ConnectionBound(bounded_connections(settings.max_connections))
    return lambda app, api_key: open_transport(app, api_key, settings, bound=bound)


def open_transport(
    app: AppSettings, api_key: str, settings: TransportSettings, *, bound: ConnectionBound | None = None
) -> Transport:
    """Make an app's transport; no connection is opened yet.

    Connections are bounded by the setting and by the file descriptors that this process may have, and by ``bound``
    together with those of other transports (the direct ones: aiohttp's keep to their own). Raises SettingsError where
    the key cannot stand in a header or ``transport.ca_file`` cannot be read.
    """
    most = bounded_connections(settings.max_connections)
    if settings.kind == "direct":
        return DirectTransport(
            base_url=app.base_url, api_key=api_key, settings=settings, max_connections=most, bound=bound
        )
    return AiohttpTransport(base_url=app.base_url, api_key=api_key, settings=settings, max_connections=most)
