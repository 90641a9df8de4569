"""The engine's structured log lines, as tests look at them."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Events(logging.Handler):
    """Collects what the engine announces, and every line that it logs, while `listening`."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def names(self) -> list[str]:
        """The events in their order."""
        return [record.event for record in self.records if hasattr(record, "event")]

    @property
    def lines(self) -> list[str]:
        """Everything that was logged, as it would be written, tracebacks included."""
        formatter = logging.Formatter("%(levelname)s %(message)s")
        return [formatter.format(record) for record in self.records]

    def fields(self, event: str) -> list[dict[str, Any]]:
        """The fields of each event of this name."""
        return [vars(record)["fields"] for record in self.records if vars(record).get("event") == event]


@contextmanager
def listening() -> Iterator[Events]:
    """Listen to the engine's log."""
    logger = logging.getLogger("sendengine")
    events = Events()
    level, propagates = logger.level, logger.propagate
    logger.addHandler(events)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    try:
        yield events
    finally:
        logger.removeHandler(events)
        logger.setLevel(level)
        logger.propagate = propagates
