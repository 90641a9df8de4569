"""One request on the wire: every foreign exception is mapped here, and only here.

`open_transport` makes the transport that the settings name; it is called on a running event loop.
"""

from sendengine.ports import Transport
from sendengine.settings import AppSettings, TransportSettings
from sendengine.transport.descriptors import bounded_connections
from sendengine.transport.direct import DirectTransport
from sendengine.transport.session import AiohttpTransport

__all__ = ["AiohttpTransport", "DirectTransport", "bounded_connections", "open_transport"]


def open_transport(app: AppSettings, api_key: str, settings: TransportSettings) -> Transport:
    """Make an app's transport; no connection is opened yet.

    Connections are bounded by the setting and by the file descriptors that this process may have. Raises
    SettingsError where the key cannot stand in a header or ``transport.ca_file`` cannot be read.
    """
    kind = DirectTransport if settings.kind == "direct" else AiohttpTransport
    return kind(
        base_url=app.base_url,
        api_key=api_key,
        settings=settings,
        max_connections=bounded_connections(settings.max_connections),
    )
