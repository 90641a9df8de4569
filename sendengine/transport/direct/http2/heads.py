"""A request's head as an HPACK block: all of it that is the same for every request is rendered once.

Units: bytes.

Method: names from the static table and literal values, none of them indexed, so that the block is the same on every
connection and no state goes with it. The key is marked as never to be indexed, by nobody on the way either (RFC 7541,
section 7.1.3).
"""

from typing import Final

from sendengine.core.onesignal import notifications_path
from sendengine.errors import NotSentError
from sendengine.ports import WireRequest
from sendengine.transport.authority import host_header, path_prefix
from sendengine.transport.credentials import request_headers
from sendengine.transport.direct.http2.literals import CONTENT_LENGTH, STATIC, integer, packed, text

_NOTIFICATIONS: Final = notifications_path()
_INDEXES: Final = {name.decode(): index for index, (name, _) in reversed([*enumerate(STATIC, 1)])}
_METHODS: Final = {"GET": b"\x82", "POST": b"\x83"}
_SCHEMES: Final = {"http": b"\x86", "https": b"\x87"}
_UNINDEXED: Final = 0x00
_NEVER_INDEXED: Final = 0x10
_SECRET: Final = frozenset({"authorization"})
_LENGTH: Final = integer(CONTENT_LENGTH, prefix=4)
_PATH_LENGTHS: Final = {size: integer(size, prefix=7) for size in range(512)}
_MOST_KEPT: Final = 1024  # lengths of bodies


class RequestBlocks:
    """Heads of requests to one base URL with one API key. Raises SettingsError where either cannot be sent."""

    __slots__ = ("_authority", "_bare", "_begun", "_kept", "_notifications", "_prefix", "_scheme", "_with_body")

    def __init__(self, base_url: str, api_key: str) -> None:
        self._prefix = path_prefix(base_url)
        self._scheme = _SCHEMES[base_url.partition(":")[0].lower()]
        self._authority = field(":authority", host_header(base_url))
        self._begun: dict[str, bytes] = {}  # what stands before the path, by the method
        self.replace_key(api_key)

    def replace_key(self, api_key: str) -> None:
        """Use another API key from the next request on. Raises SettingsError as `request_headers` does."""
        headers = {name.lower(): value for name, value in request_headers(api_key).items()}
        self._with_body = b"".join(field(name, value) for name, value in headers.items())
        del headers["content-type"]
        self._bare = b"".join(field(name, value) for name, value in headers.items())
        self._notifications = self._to("POST", _NOTIFICATIONS)
        self._kept: dict[int, tuple[bytes, bytes]] = {}  # by the length of the body; see `_keep`

    def block(self, request: WireRequest) -> bytes:
        """Render a request's head. Raises NotSentError where its path or method cannot stand in one."""
        path, size = request.path, len(request.body)
        if path == _NOTIFICATIONS and request.method == "POST":
            return (self._kept.get(size) or self._keep(size))[0]
        if not path.isascii() or not path.isprintable() or " " in path:
            raise NotSentError("the request's path is not percent-encoded")
        if size or request.method != "GET":
            return self._to(request.method, path) + (self._kept.get(size) or self._keep(size))[1]
        return self._to(request.method, path) + self._bare

    def _keep(self, size: int) -> tuple[bytes, bytes]:
        """Render the head of a notification with so long a body, and what stands behind the path in every head."""
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        rest = self._with_body + _LENGTH + text(b"%d" % size)
        kept = self._kept[size] = self._notifications + rest, rest
        return kept

    def _to(self, method: str, path: str) -> bytes:
        """Return the pseudo-header fields."""
        begun = self._begun.get(method)
        if begun is None:
            verb = _METHODS.get(method) or field(":method", method)
            begun = self._begun[method] = b"%b%b%b\x04" % (verb, self._scheme, self._authority)
        whole = (self._prefix + path).encode("ascii")
        return begun + (_PATH_LENGTHS.get(len(whole)) or integer(len(whole), prefix=7)) + whole


def field(name: str, value: str) -> bytes:
    """Render a header field whose value does not change."""
    index = _INDEXES.get(name, 0)
    begun = integer(index, prefix=4, flags=_NEVER_INDEXED if name in _SECRET else _UNINDEXED)
    return begun + (b"" if index else packed(name.encode("ascii"))) + packed(value.encode("ascii"))
