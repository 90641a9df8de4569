"""What `sendengine doctor` looks at on this machine and on the way to OneSignal; every check ends in a Check.

Units: ``_s`` seconds, ``_bytes`` bytes.
"""

import asyncio
import os
import shutil
import socket
import ssl
import tempfile
import time
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final, Literal
from urllib.parse import SplitResult, urlsplit

from msgspec import Struct

from sendengine.settings import TransportSettings
from sendengine.settings.urls import port_of
from sendengine.transport import bounded_connections
from sendengine.transport.tls import tls_context

TIMEOUT_S: Final = 10.0
_LITTLE_BYTES: Final = 1_000_000_000
_TOO_LITTLE_BYTES: Final = 100_000_000
_SKEW_S: Final = 5.0  # the Date header has whole seconds, and the way takes a part of one


class Check(Struct, frozen=True):
    """What one check found; ``mend`` says what to do where it is not ok."""

    name: str
    result: Literal["ok", "warn", "fail"]
    detail: str
    mend: str = ""


def check_descriptors(transport: TransportSettings) -> Check:
    """See whether the process may open as many connections as the settings allow."""
    wanted, allowed = transport.max_connections, bounded_connections(transport.max_connections)
    if allowed == wanted:
        return Check("file descriptors", "ok", f"enough for {wanted:,} connections")
    return Check(
        "file descriptors",
        "warn",
        f"enough for {allowed:,} of {wanted:,} connections",
        "raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=), or lower transport.max_connections",
    )


def check_disk(name: str, folder: Path) -> Check:
    """See whether a directory can be written to, and how much room there is."""
    existing = folder
    try:
        whole = folder.absolute()
        existing = next(parent for parent in (whole, *whole.parents) if os.access(parent, os.F_OK))
        with tempfile.TemporaryFile(dir=existing):
            pass
        free_bytes = shutil.disk_usage(existing).free
    except OSError as error:
        return Check(name, "fail", f"{existing} cannot be written to: {error.strerror}", "correct its owner or mode")
    detail = f"{folder}: {free_bytes / 1e9:,.1f} GB free"
    if free_bytes < _TOO_LITTLE_BYTES:
        return Check(name, "fail", detail, "make room: each request leaves a line in its run's report")
    if free_bytes < _LITTLE_BYTES:
        return Check(name, "warn", detail, "little room: each request leaves a line in its run's report")
    return Check(name, "ok", detail)


async def check_dns(base_url: str) -> Check:
    """Look up the API's host."""
    host, port = _address(urlsplit(base_url))
    try:
        async with asyncio.timeout(TIMEOUT_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError) as error:
        return Check("DNS", "fail", f"{host}: {in_words(error)}", "check base_url and this machine's resolver")
    addresses = sorted({str(entry[4][0]) for entry in found})
    return Check("DNS", "ok", f"{host} is {', '.join(addresses[:4])}")


async def check_connection(base_url: str, transport: TransportSettings) -> tuple[Check, ...]:
    """Connect as sending would, and compare the server's clock with ours; no key goes along."""
    if transport.proxy is not None:
        return (
            Check("TLS", "warn", "a proxy is set, so it was not tried directly", "use --app, which goes through it"),
        )
    try:
        return await connect(base_url, transport)
    except ssl.SSLCertVerificationError as error:
        mend = "set transport.ca_file to your company's certificates, or correct base_url"
        return (Check("TLS", "fail", in_words(error), mend),)
    except (OSError, TimeoutError) as error:
        mend = "check base_url, the firewall, and whether a proxy is needed (transport.proxy)"
        return (Check("TLS", "fail", f"{urlsplit(base_url).netloc}: {in_words(error)}", mend),)


async def connect(base_url: str, transport: TransportSettings) -> tuple[Check, ...]:
    """Connect without a proxy. Raises OSError, an SSLCertVerificationError among them, and TimeoutError."""
    parts = urlsplit(base_url)
    host, port = _address(parts)
    context = tls_context(transport.ca_file) if parts.scheme == "https" else None
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        try:
            tls = _check_tls(writer)
            asked_at_s = time.time()
            writer.write(f"HEAD / HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n".encode())
            head = await reader.read(16_384)
            return (tls, check_clock(head.decode("latin-1"), now_s=asked_at_s))
        finally:
            writer.transport.abort()


def _check_tls(writer: asyncio.StreamWriter) -> Check:
    tls = writer.get_extra_info("ssl_object")
    if tls is None:
        return Check("TLS", "warn", "connected without TLS", "use https:// for anything but a test server")
    return Check("TLS", "ok", f"{tls.version()}, certificate verified")


def check_clock(head: str, *, now_s: float) -> Check:
    """Compare this machine's clock (seconds since the epoch) with the Date of a reply's head."""
    date = next((line[5:].strip() for line in head.split("\r\n") if line.lower().startswith("date:")), "")
    try:
        skew_s = now_s - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return Check("clock", "warn", "the server did not say what time it is", "compare it with another clock")
    if abs(skew_s) <= _SKEW_S:
        return Check("clock", "ok", "agrees with the server's")
    way = "ahead of" if skew_s > 0 else "behind"
    mend = "set up NTP: deadlines, send_after and the application limit's window go by it"
    return Check("clock", "warn", f"{abs(skew_s):,.0f} s {way} the server's", mend)


def _address(parts: SplitResult) -> tuple[str, int]:
    return parts.hostname or "", port_of(parts)


def in_words(error: OSError | TimeoutError) -> str:
    """Say why no connection could be opened."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError) and not error.args:
        return f"no answer within {TIMEOUT_S:.0f} s"
    return error.strerror or str(error)
