"""Checks the URLs of the settings, so that a key never travels in the clear by mistake."""

from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

from sendengine.core.onesignal import BASE_URL
from sendengine.settings.kinds import FieldError

_ONESIGNAL: Final = "onesignal.com"


def checked_base_url(url: str, *, is_insecure_allowed: bool) -> str:
    """Return the URL without a slash at its end.

    Raises FieldError where it is none, has parts that a base URL cannot have, or is plain http to another machine.
    """
    parts = _split("AppSettings", "base_url", url, example=BASE_URL)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise FieldError("AppSettings", "base_url", "may have a host, a port and a path, and nothing else")
    if parts.scheme == "http" and not (is_insecure_allowed or is_loopback(parts.hostname or "")):
        raise FieldError(
            "AppSettings",
            "base_url",
            f"http:// would send the key to {parts.hostname} in the clear; use https://, or set allow_insecure = true",
        )
    return url.rstrip("/")


def check_proxy(url: str) -> None:
    """Raise FieldError where a proxy's URL is none."""
    _split("TransportSettings", "proxy", url, example="http://proxy.example:3128")


def port_of(parts: SplitResult) -> int:
    """The port that a checked URL names, or that of its scheme."""
    return parts.port or default_port(parts.scheme)


def default_port(scheme: str) -> int:
    """The port of a scheme."""
    return 443 if scheme == "https" else 80


def is_loopback(host: str) -> bool:
    """Whether a host is this machine by its name or address alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def is_onesignal(host: str) -> bool:
    """Whether a host is OneSignal's by its name."""
    name = host.lower().rstrip(".")
    return name == _ONESIGNAL or name.endswith(f".{_ONESIGNAL}")


def _split(table: str, name: str, url: str, *, example: str) -> SplitResult:
    problem = f"must be a URL such as {example}"
    if any(character.isspace() or not character.isprintable() for character in url):
        raise FieldError(table, name, problem)
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is none, a bracket that is open, a label that no name can have
        raise FieldError(table, name, problem) from None
    if not is_right:
        raise FieldError(table, name, problem)
    return parts
