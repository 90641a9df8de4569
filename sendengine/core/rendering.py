"""What a caller gave as JSON, or what keeps it from being any.

Units: none.
"""

from collections.abc import Mapping, Sequence
from math import isfinite

import orjson

from sendengine.errors import InvalidJobError


def rendered(name: str, value: Mapping[str, object] | Sequence[object]) -> bytes:
    """Render a value as JSON. Raises InvalidJobError, which names it, where it is none."""
    try:
        text = written(value)
    except TypeError as error:
        raise InvalidJobError(name, f"cannot be written as JSON: {error}") from None
    if b"null" in text and _holds_no_number(value):
        raise InvalidJobError(name, "JSON has no infinity and no NaN, and orjson would write null")
    return text


def written(value: object) -> bytes:
    """Write a part of a job as JSON, which leaves room for the levels that a record or a line has around it.

    Raises TypeError where it is no JSON, or nested so deep that such a record could not be written.
    """
    return orjson.dumps([[[[value]]]])[4:-4]


def _holds_no_number(value: object) -> bool:
    """Whether a float that is infinite, or none, stands anywhere within a value."""
    if isinstance(value, Mapping):
        return any(map(_holds_no_number, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(_holds_no_number, value))
    return isinstance(value, float) and not isfinite(value)
