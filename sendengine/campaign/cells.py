"""What the cells beside an id come to: custom data of a template, tags and properties of a user, and their faults.

Units: sizes are bytes of JSON.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Final

import orjson

from sendengine.campaign.definition import NUMBER_PROPERTIES, Campaign
from sendengine.campaign.tables import Chunk, Fault
from sendengine.core.jobs import Json, TagValue
from sendengine.core.onesignal import CUSTOM_DATA_CAP_BYTES
from sendengine.core.rendering import written

_JSON_GROWTH: Final = 6  # bytes that a character can take in JSON
_SHOWN: Final = 60  # characters of a cell that is at fault
_UNWRITABLE: Final = "cannot be written as JSON"


def is_blank(cell: Json) -> bool:
    """Whether a cell says nothing: missing, null or an empty text."""
    return cell is None or cell == ""


def property_value(name: str, cell: Json) -> Json:
    """Return a user's property as OneSignal documents it; raises ValueError where the cell is no such number."""
    kind = NUMBER_PROPERTIES.get(name)
    if kind is None:
        return cell
    number = kind(cell) if isinstance(cell, str) else cell
    if isinstance(number, bool) or not isinstance(number, (int, float)) or _is_endless(number):
        raise ValueError(cell)
    return number


def _is_endless(number: float) -> bool:
    return isinstance(number, float) and not isfinite(number)  # of a whole number of 400 digits, isfinite raises


def tag_value(cell: Json) -> TagValue:
    """Return a tag as a job takes it; raises ValueError where the cell is a list or an object."""
    if cell is None or isinstance(cell, (str, int, float)):
        return cell
    raise ValueError(cell)


def cell_faults(campaign: Campaign, chunk: Chunk) -> Iterator[tuple[int, Fault]]:
    """Find cells that a template needs and that are empty, data over the cap, numbers that are none, and no JSON."""
    for field, column in campaign.custom_data.items():
        cells = chunk.cells[column]
        if "" in cells or None in cells:
            for index, cell in enumerate(cells):
                if is_blank(cell):
                    yield index, chunk.fault(index, column, f"is empty, and the template needs it as {field}")
    if campaign.custom_data:
        yield from _oversized(campaign, chunk)
    for name, column in campaign.properties.items():
        yield from _no_properties(name, column, chunk)
    for name, column in campaign.tags.items():
        yield from _no_tags(name, column, chunk)


def unchanged_rows(campaign: Campaign, chunk: Chunk) -> Sequence[int]:
    """Return the rows of user changes in which every cell is empty: nothing would change."""
    if campaign.is_notification:
        return ()
    columns = [chunk.cells[column] for column in (*campaign.tags.values(), *campaign.properties.values())]
    if not all("" in cells or None in cells for cells in columns):
        return ()
    return [index for index, row in enumerate(zip(*columns, strict=True)) if all(map(is_blank, row))]


def custom_data_of(campaign: Campaign, users: Mapping[str, Json]) -> dict[str, Json]:
    """Return a message's ``custom_data``: its own, and that of one row, or of several by user where they are packed."""
    own = campaign.message.get("custom_data")
    base = dict(own) if isinstance(own, Mapping) else {}
    if campaign.pack_custom_data:
        return base | {"users": users}
    for data in users.values():
        base |= data if isinstance(data, Mapping) else {}
    return base


def _oversized(campaign: Campaign, chunk: Chunk) -> Iterator[tuple[int, Fault]]:
    cap = CUSTOM_DATA_CAP_BYTES[campaign.channel or "email"]
    frame = len(orjson.dumps(custom_data_of(campaign, {"": dict.fromkeys(campaign.custom_data, "")})))
    columns = [chunk.cells[column] for column in campaign.custom_data.values()]
    if _surely_fits([chunk.ids, *columns], cap - frame):
        return
    for index, row in enumerate(zip(*columns, strict=True)):
        data = dict(zip(campaign.custom_data, row, strict=True))
        field = next(iter(campaign.custom_data.values()))
        try:
            size = len(written([custom_data_of(campaign, {chunk.ids[index]: data})])[1:-1])  # a message is around it
        except TypeError as error:
            yield index, chunk.fault(index, field, f"makes custom_data that {_UNWRITABLE}: {error}")
            continue
        if size > cap:
            yield index, chunk.fault(index, field, f"makes custom_data of {size:,} bytes; at most {cap:,} are taken")


def _surely_fits(columns: Sequence[Sequence[Json]], room_bytes: int) -> bool:
    longest = 0
    for cells in columns:
        if set(map(type, cells)) != {str}:
            return False
        longest += max(len(cell) for cell in cells if isinstance(cell, str)) * _JSON_GROWTH
    return longest <= room_bytes


def _no_properties(name: str, column: str, chunk: Chunk) -> Iterator[tuple[int, Fault]]:
    cells = chunk.cells[column]
    if name not in NUMBER_PROPERTIES and set(map(type, cells)) == {str}:
        return
    for index, cell in enumerate(cells):
        if is_blank(cell):
            continue
        try:
            written([property_value(name, cell)])  # properties are around it
        except ValueError:
            yield index, chunk.fault(index, column, f"{_shown(cell)} is no number, and {name} is one")
        except TypeError as error:
            yield index, chunk.fault(index, column, f"{_shown(cell)} {_UNWRITABLE}: {error}")


def _shown(cell: Json) -> str:
    text = repr(cell)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _no_tags(name: str, column: str, chunk: Chunk) -> Iterator[tuple[int, Fault]]:
    for index, cell in enumerate(chunk.cells[column]):
        if isinstance(cell, (list, dict)):
            yield (
                index,
                chunk.fault(
                    index, column, f"is a list or an object, and the tag {name} is a text, a number or a boolean"
                ),
            )
