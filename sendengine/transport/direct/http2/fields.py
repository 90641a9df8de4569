"""A reply's headers, read from its header block when somebody asks for one.

Units: bytes.

Method: what the engine asks for in a reply that succeeds is hardly ever there, and not to find a name is quick: a name
that is not in the static table must stand in the block in full, either as it is or in Huffman's code. Whatever may be
there is found by walking all fields, once.
"""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Final, TypeVar, overload

from sendengine.transport.direct.http2.literals import INDEXED, STATIC, coded, end_of_string, index_at, string_at, text

_T = TypeVar("_T")
_LITERALS: Final = b"\x00\x10\x40"  # what may stand before a name
_LONGEST: Final = 100  # characters of a name whose length is one byte
_STATIC_NAMES: Final = frozenset(name.decode() for name, _ in STATIC)


class BlockFields(Mapping[str, str]):
    """Headers by their lower-case names; of several with one name, the last."""

    __slots__ = ("_all", "_block", "_start")

    def __init__(self, block: bytes, start: int) -> None:
        """``block`` was walked without a fault, and ``start`` is where the fields begin after the status."""
        self._block = block
        self._start = start
        self._all: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._found()[name]

    @overload
    def get(self, name: str, /) -> str | None: ...
    @overload
    def get(self, name: str, /, default: str) -> str: ...
    @overload
    def get(self, name: str, /, default: _T) -> str | _T: ...
    def get(self, name: str, /, default: str | _T | None = None) -> str | _T | None:
        """Return a header's value, or ``default`` where there is none."""
        forms = _forms(name)
        if self._all is None and forms:
            block = self._block
            at = max(block.rfind(forms[0]), block.rfind(forms[1]))
            if at < 0:
                return default
            if block[at - 1] in _LITERALS:
                with suppress(ValueError, IndexError):  # what looks like a name may stand within a value
                    return _text(string_at(block, at + 1 + (block[at] & 0x7F))[0])
        return self._found().get(name, default)

    def __iter__(self) -> Iterator[str]:
        return iter(self._found())

    def __len__(self) -> int:
        return len(self._found())

    def __repr__(self) -> str:
        return f"BlockFields({dict(self)})"

    def _found(self) -> dict[str, str]:
        if self._all is None:
            self._all = dict(_decoded(self._block, self._start))
        return self._all


@lru_cache(maxsize=64)
def _forms(name: str) -> tuple[bytes, bytes] | None:
    """Return how a name stands in a block that has it; None where an index may stand for it, or it is very long."""
    if name in _STATIC_NAMES or len(name) > _LONGEST:
        return None
    return text(name.encode()), coded(name.encode())


def _text(value: bytes) -> str:
    return value.strip(b" \t").decode("utf-8", "surrogateescape")


def _decoded(block: bytes, at: int) -> Iterator[tuple[str, str]]:
    """Read every field, after the walk has found no fault; one whose value cannot be read is left out."""
    while at < len(block):
        first = block[at]
        if first >= INDEXED:
            name, value = STATIC[(first & 0x7F) - 1]
            at += 1
        else:
            index, at = index_at(block, at)
            name, at = string_at(block, at) if index == 0 else (STATIC[index - 1][0], at)
            end = end_of_string(block, at)
            try:
                value, _ = string_at(block, at)
            except ValueError:
                continue
            finally:
                at = end
        yield name.decode("utf-8", "surrogateescape"), _text(value)
