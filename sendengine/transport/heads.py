"""A request as the bytes that go out: all of its head that is the same for every request is rendered once.

Units: bytes.
"""

from typing import Final

from sendengine.core.onesignal import notifications_path
from sendengine.errors import NotSentError
from sendengine.ports import WireRequest
from sendengine.transport.authority import host_header, path_prefix
from sendengine.transport.credentials import request_headers

_NOTIFICATIONS: Final = notifications_path()
_MOST_KEPT: Final = 1024  # heads that differ only in the length of the body


class Heads:
    """Heads of requests to one base URL with one API key. Raises SettingsError where either cannot be sent."""

    __slots__ = ("_bare", "_host", "_kept", "_notifications", "_prefix", "_with_body")

    def __init__(self, base_url: str, api_key: str) -> None:
        self._prefix = path_prefix(base_url)
        self._host = host_header(base_url)
        self.replace_key(api_key)

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next head on. Raises SettingsError as `request_headers` does."""
        headers = {"Host": self._host} | request_headers(api_key)
        self._with_body = _rendered(headers) + "Content-Length: "
        self._notifications = f"POST {self._prefix}{_NOTIFICATIONS}{self._with_body}".encode("ascii")
        self._kept: dict[int, bytes] = {}  # heads of notifications by the length of their bodies
        del headers["Content-Type"]
        self._bare = _rendered(headers) + "\r\n"

    def head(self, request: WireRequest) -> bytes:
        """Render a request's head. Raises NotSentError where its path or method cannot stand in one."""
        path, body = request.path, request.body
        if path == _NOTIFICATIONS and request.method == "POST":
            return self._kept.get(len(body)) or self._keep(len(body))
        if not path.isascii() or not path.isprintable() or " " in path:
            raise NotSentError("the request's path is not percent-encoded")
        if body or request.method != "GET":
            head = f"{request.method} {self._prefix}{path}{self._with_body}{len(body)}\r\n\r\n"
        else:
            head = f"{request.method} {self._prefix}{path}{self._bare}"
        return head.encode("ascii")

    def _keep(self, size: int) -> bytes:
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        head = self._kept[size] = b"%b%d\r\n\r\n" % (self._notifications, size)
        return head


def _rendered(headers: dict[str, str]) -> str:
    """Return the rest of a request line, and headers, as far as they do not change."""
    return " HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
