"""What a resolver says, in tests of addresses and dials."""

import socket
from collections.abc import Sequence
from typing import Any

import pytest

from sendengine.transport.direct.addresses import Address

V4, V6 = socket.AF_INET, socket.AF_INET6
Found = list[tuple[int, int, int, str, tuple[Any, ...]]]


def found(*hosts: str) -> Found:
    """What getaddrinfo says of these."""
    kinds = [(V6, (host, 80, 0, 0)) if ":" in host else (V4, (host, 80)) for host in hosts]
    return [(family, socket.SOCK_STREAM, 6, "", where) for family, where in kinds]


def order(addresses: Sequence[Address]) -> list[object]:
    return [address.where[0] for address in addresses]


class Names:
    """Answers look-ups, and counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, answer: Found | OSError) -> None:
        self.answer = answer
        self.count = 0
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, *_: object, **__: object) -> Found:
        self.count += 1
        if isinstance(self.answer, OSError):
            raise self.answer
        return self.answer
