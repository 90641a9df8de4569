"""Runs it: engine, lanes, workers, user pacing, receipts."""

from sendengine.engine.engine import Health, SendEngine, TransportFactory
from sendengine.engine.receipts import Receipt

__all__ = ["Health", "Receipt", "SendEngine", "TransportFactory"]
