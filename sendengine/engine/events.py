"""One structured log line for each thing that an operator must know: holds, changes of rate, stops.

The line reads by itself; its fields are in the record too (``record.event``, ``record.fields``), for whoever collects.
"""

import logging

_log = logging.getLogger("sendengine")

Field = str | int | float | bool | None


def announce(event: str, text: str, *, level: int = logging.INFO, **fields: Field) -> None:
    """Log ``text`` with the event's name and fields."""
    if _log.isEnabledFor(level):
        _log.log(level, "%s", text, extra={"event": event, "fields": fields})
