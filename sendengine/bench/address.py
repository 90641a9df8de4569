"""Decides where a benchmark may offer load: this machine, or a server on the settings' list, and never OneSignal.

Method: names are refused by their spelling, by what they are an alias of, and by their addresses where one of these is
an address of OneSignal's API too. An address that is not this machine's is on the list by the name that was given,
with or without its port, or because every address that the name has is. Where OneSignal's own name cannot be looked
up, a public address is refused, since nobody can tell whose it is; a private one cannot be OneSignal's.

Units: ``_s`` is seconds.
"""

import asyncio
import socket
from collections.abc import Callable, Collection, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from sendengine.core.onesignal import BASE_URL
from sendengine.errors import SettingsError
from sendengine.settings.kinds import FieldError
from sendengine.settings.urls import checked_base_url, is_onesignal, port_of

_TIMEOUT_S: Final = 10.0
_API_HOSTS: Final = (urlsplit(BASE_URL).hostname or "", "onesignal.com")
_NEVER: Final = (
    "a benchmark never goes to OneSignal's own API, and no option changes that; leave the address out and a mock "
    "server is started here, or name a test server of yours"
)

_Ip: TypeAlias = IPv4Address | IPv6Address


class _Host(Struct, frozen=True):
    """What a look-up says of a host: its addresses, and the name that it is an alias of."""

    addresses: frozenset[_Ip]
    canonical: str


async def check_address(base_url: str, *, allowed: Callable[[], Sequence[str]]) -> str:
    """Return the URL without a slash at its end, if a benchmark may go there.

    ``allowed`` reads ``bench.addresses`` of the settings, and is asked only where the address needs it. Raises
    SettingsError, which says why not and how to mend it. Cancelling it leaves a look-up to end by itself.
    """
    host, port, url = _taken_apart(base_url)
    if is_onesignal(host):
        raise SettingsError(f"{url}: {_NEVER}")
    found = await _look_up(host)
    if found is None:
        raise SettingsError(f"{url}: the name {host} is not known; correct it, or this machine's resolver")
    if is_onesignal(found.canonical):
        raise SettingsError(f"{url}: {host} is another name of {found.canonical}, and {_NEVER}")
    if all(address.is_loopback for address in found.addresses):
        return url
    await _check_not_api(url, found)
    if not _is_listed(host, port, found.addresses, allowed()):
        raise SettingsError(
            f"{url}: is neither this machine nor on the list; if it is a test server of yours, write "
            f'addresses = ["{_bracketed(host)}:{port}"] under [bench] in the settings, and name them with --config'
        )
    return url


def _taken_apart(base_url: str) -> tuple[str, int, str]:
    try:
        url = checked_base_url(base_url, is_insecure_allowed=True)
    except FieldError as error:
        hint = "write it as http://127.0.0.1:8080" if "such as" in error.problem else f"it {error.problem}"
        raise SettingsError(f"{base_url}: is no address to offer load to; {hint}") from None
    parts = urlsplit(url)
    return parts.hostname or "", port_of(parts), url


async def _look_up(host: str) -> _Host | None:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_CANONNAME)
    except (OSError, TimeoutError, UnicodeError):  # UnicodeError: a label that no name can have
        return None
    addresses = frozenset(_plain(ip_address(str(entry[4][0]).partition("%")[0])) for entry in found)
    return _Host(addresses, next((entry[3] for entry in found if entry[3]), ""))


async def _check_not_api(url: str, host: _Host) -> None:
    known = [found for found in [await _look_up(name) for name in _API_HOSTS] if found is not None]
    for api in known:
        if shared := api.addresses.intersection(host.addresses):
            raise SettingsError(f"{url}: is at {min(map(str, shared))}, where OneSignal's API is, and {_NEVER}")
        if api.canonical and api.canonical == host.canonical:
            raise SettingsError(f"{url}: is {host.canonical}, as OneSignal's API is, and {_NEVER}")
    if not known and not all(address.is_private for address in host.addresses):
        raise SettingsError(
            f"{url}: {_API_HOSTS[0]} cannot be looked up here, so that nobody can tell whether this is OneSignal's own "
            "API; mend this machine's resolver, or name a server with a private address"
        )


def _is_listed(host: str, port: int, addresses: Collection[_Ip], allowed: Sequence[str]) -> bool:
    listed = {entry.lower().rstrip(".") for entry in allowed}

    def has(name: str) -> bool:
        return _bracketed(name) in listed or f"{_bracketed(name)}:{port}" in listed

    return has(host.lower().rstrip(".")) or all(has(str(address)) for address in addresses)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _plain(address: _Ip) -> _Ip:
    """An IPv4 address that is written as one of IPv6 is what it is."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped
