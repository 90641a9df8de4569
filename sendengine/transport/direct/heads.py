"""A request as the bytes that go out: all of its head that is the same for every request is rendered once.

Units: bytes.
"""

from typing import Final
from urllib.parse import quote, urlsplit

from sendengine.core.onesignal import notifications_path
from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import WireRequest
from sendengine.transport.credentials import request_headers

_NOTIFICATIONS: Final = notifications_path()
_SAFE_IN_PATH: Final = "/%:@!$&'()*+,;=~"


class Heads:
    """Heads of requests to one base URL with one API key. Raises SettingsError where either cannot be sent."""

    __slots__ = ("_bare", "_host", "_notifications", "_prefix", "_with_body")

    def __init__(self, base_url: str, api_key: str) -> None:
        self._prefix = quote(urlsplit(base_url).path.rstrip("/"), safe=_SAFE_IN_PATH)
        self._host = host_header(base_url)
        self.replace_key(api_key)

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next head on. Raises SettingsError as `request_headers` does."""
        headers = {"Host": self._host} | request_headers(api_key)
        self._with_body = _rendered(headers) + "Content-Length: "
        self._notifications = f"POST {self._prefix}{_NOTIFICATIONS}{self._with_body}".encode("ascii")
        del headers["Content-Type"]
        self._bare = _rendered(headers) + "\r\n"

    def head(self, request: WireRequest) -> bytes:
        """Render a request's head. Raises NotSentError where its path or method cannot stand in one."""
        path, body = request.path, request.body
        if path == _NOTIFICATIONS and request.method == "POST":
            return b"%b%d\r\n\r\n" % (self._notifications, len(body))
        if not path.isascii() or not path.isprintable() or " " in path:
            raise NotSentError("the request's path is not percent-encoded")
        if body or request.method != "GET":
            head = f"{request.method} {self._prefix}{path}{self._with_body}{len(body)}\r\n\r\n"
        else:
            head = f"{request.method} {self._prefix}{path}{self._bare}"
        return head.encode("ascii")


def host_header(base_url: str) -> str:
    """Return what stands in ``Host``: the name in ASCII, and the port where it is not the scheme's own."""
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


def _rendered(headers: dict[str, str]) -> str:
    """Return the rest of a request line, and headers, as far as they do not change."""
    return " HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
