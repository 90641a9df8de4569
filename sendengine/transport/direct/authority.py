"""What a base URL says about where requests go: host, port, and the path before every request's own."""

from typing import Final
from urllib.parse import quote, urlsplit

from sendengine.errors import SettingsError

_SAFE_IN_PATH: Final = "/%:@!$&'()*+,;=~"


def host_header(base_url: str) -> str:
    """Return the host as requests name it: in ASCII, and with the port where it is not the scheme's own."""
    parts = urlsplit(base_url)
    host = ascii_host(base_url)
    name = f"[{host}]" if ":" in host else host
    has_own_port = parts.port is None or parts.port == default_port(parts.scheme)
    return name if has_own_port else f"{name}:{parts.port}"


def ascii_host(base_url: str) -> str:
    """Return the host's name as DNS and certificates have it, or its address without brackets.

    Raises SettingsError where it cannot be one.
    """
    host = urlsplit(base_url).hostname or ""
    try:
        return host if host.isascii() else host.encode("idna").decode("ascii")
    except UnicodeError:
        raise SettingsError(f"base_url: {host!r} is no name of a host") from None


def default_port(scheme: str) -> int:
    """Return the port of a scheme."""
    return 443 if scheme == "https" else 80


def path_prefix(base_url: str) -> str:
    """Return the path that goes before every request's own, percent-encoded and without a slash at its end."""
    return quote(urlsplit(base_url).path.rstrip("/"), safe=_SAFE_IN_PATH)
