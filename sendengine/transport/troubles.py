"""Why no connection could be opened, in words for whoever can mend it: what was met, where, and what to look at.

Source: OpenSSL's reasons, as `ssl.SSLError.reason` has them.
"""

import errno
import ssl
from typing import Final

from sendengine.transport.failures import words

_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "UNEXPECTED_MESSAGE", "PACKET_LENGTH_TOO_LONG", "HTTP_REQUEST"})
_OLD_TLS: Final = frozenset({"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL"})
_OFFLINE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN})
_NO_DESCRIPTORS: Final = frozenset({errno.EMFILE, errno.ENFILE})


class UnresolvedError(OSError):
    """The resolver names no address; internal, never leaves the transport."""


def unresolved(host: str, error: OSError, *, named_by: str = "base_url") -> str:
    """Say that a name has no addresses; ``named_by`` is the setting that it stands in."""
    why = error.strerror or error
    return f"the name {host} cannot be looked up: {why}; look at {named_by}, and this machine's resolver"


def unopened(where: str, error: Exception, *, named_by: str = "base_url") -> str:
    """Say why there is no connection to ``where``, as far as a foreign exception tells.

    ``named_by`` is the setting that names it.
    """
    return f"no connection to {where}: {_explained(error, named_by)}"


def overdue(where: str, timeout_s: float, *, through: str = "") -> str:
    """Say that none was open in time; ``through`` is the proxy, where there is one."""
    if through:
        return f"no connection to {where}: not open through {through} within {timeout_s:g} s; look at transport.proxy"
    return (
        f"no connection to {where}: not open within {timeout_s:g} s; "
        "look at base_url, the firewall, and whether a proxy is needed (transport.proxy)"
    )


def written(host: str, port: int) -> str:
    """Return host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _explained(error: Exception, named_by: str) -> str:
    if isinstance(error, UnresolvedError):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        why = error.verify_message.rstrip(".")
        return f"certificate verify failed: {why}; correct {named_by}, or set transport.ca_file"
    if isinstance(error, ssl.SSLError) and error.reason in _NO_TLS:
        return f"what answers there does not speak TLS; correct {named_by}'s scheme or port ({words(error)})"
    if isinstance(error, ssl.SSLError) and error.reason in _OLD_TLS:
        return f"what answers there does not speak TLS 1.2 or newer ({words(error)})"
    if isinstance(error, ConnectionRefusedError):
        return f"refused; look at {named_by}'s host and port, and the firewall ({words(error)})"
    return _of_the_system(error)


def _of_the_system(error: Exception) -> str:
    if isinstance(error, (ConnectionError, EOFError)):
        return f"the server ended it while it was being opened ({words(error)})"
    number = error.errno if isinstance(error, OSError) else None
    if number in _OFFLINE:
        return f"this machine has no way there ({words(error)})"
    if number in _NO_DESCRIPTORS:
        return f"too many files are open; raise their limit, or lower transport.max_connections ({words(error)})"
    return words(error)
