"""A OneSignal on loopback that enforces its limits with counters of its own, and misbehaves on request."""

from sendengine.mockserver.certificates import self_made, server_context
from sendengine.mockserver.config import AppConfig, Fault, LaneLimit, MockConfig, parse_config
from sendengine.mockserver.faults import parse_fault
from sendengine.mockserver.ledger import Ledger, Summary
from sendengine.mockserver.options import Option, config_from, options
from sendengine.mockserver.process import MockProcess
from sendengine.mockserver.server import MockServer, serve
from sendengine.mockserver.summary import summary_lines
from sendengine.mockserver.tuning import fast_loop, tune_process

__all__ = [
    "AppConfig",
    "Fault",
    "LaneLimit",
    "Ledger",
    "MockConfig",
    "MockProcess",
    "MockServer",
    "Option",
    "Summary",
    "config_from",
    "fast_loop",
    "options",
    "parse_config",
    "parse_fault",
    "self_made",
    "serve",
    "server_context",
    "summary_lines",
    "tune_process",
]
