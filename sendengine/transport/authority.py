"""What a base URL says about where requests go: host, port, and the path before every request's own."""

from typing import Final
from urllib.parse import quote, urlsplit

from sendengine.errors import SettingsError
from sendengine.settings.urls import default_port, port_of

_SAFE_IN_PATH: Final = "/%:@!$&'()*+,;=~"


def host_header(base_url: str) -> str:
    """Return the host as requests name it: in ASCII, and with the port where it is not the scheme's own."""
    parts = urlsplit(base_url)
    host = ascii_host(base_url)
    name = f"[{host}]" if ":" in host else host
    port = port_of(parts)
    return name if port == default_port(parts.scheme) else f"{name}:{port}"


def ascii_host(base_url: str) -> str:
    """Return the host's name as DNS and certificates have it, or its address without brackets.

    Raises SettingsError where it cannot be one.
    """
    host = urlsplit(base_url).hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise SettingsError(f"base_url: {host!r} is no name of a host") from None


def path_prefix(base_url: str) -> str:
    """Return the path that goes before every request's own, percent-encoded and without a slash at its end."""
    return quote(urlsplit(base_url).path.rstrip("/"), safe=_SAFE_IN_PATH)
