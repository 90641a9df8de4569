"""``python -m sendengine.mockserver``: serve until SIGTERM, SIGINT, or the end of a piped standard input.

Prints ``{"base_url": …}`` as one line when it is ready, and the summary as one line of JSON at the end.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import ssl as tls
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec
import orjson

from sendengine.errors import SettingsError
from sendengine.mockserver.certificates import server_context
from sendengine.mockserver.config import MockConfig, parse_config
from sendengine.mockserver.faults import parse_fault
from sendengine.mockserver.server import MockServer, cannot_listen, serve
from sendengine.mockserver.tuning import fast_loop, tune_process

_UNREAD: Final = 1
_USAGE: Final = 2
_LAST_PORT: Final = 65_535


def main() -> int:
    """Run the server; 2 for impossible settings and where it cannot listen, 1 where nobody reads what it says."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.keyfile and not arguments.certfile:
        parser.error("--keyfile: needs --certfile")
    try:
        config = _config(arguments.config_json, arguments.fault)
        ssl = server_context(arguments.certfile, arguments.keyfile) if arguments.certfile else None
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return _USAGE
    try:
        with asyncio.Runner(loop_factory=fast_loop) as runner:
            runner.run(_run(config, arguments, ssl))
    except BrokenPipeError:  # whoever started it is gone, and reads nothing any more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor what the buffer still holds
        return _UNREAD
    except OSError as error:
        sys.stderr.write(f"{cannot_listen(arguments.host, arguments.port, error)}; choose another --host or --port\n")
        return _USAGE
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sendengine.mockserver", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=port, default=0, help="0 takes any free port")
    parser.add_argument("--config-json", default="{}", help="settings as JSON; - reads one line of standard input")
    parser.add_argument("--fault", action="append", default=[], help="such as 503:0.03; may be given several times")
    parser.add_argument("--certfile", type=Path, help="speak TLS with this certificate (PEM)")
    parser.add_argument("--keyfile", type=Path, help="its key, where it is in another file")
    return parser


def port(text: str) -> int:
    """Read a port; raises ValueError, of which argparse says this function's name."""
    number = int(text)
    if not 0 <= number <= _LAST_PORT:
        raise ValueError(text)
    return number


def _config(text: str, faults: list[str]) -> MockConfig:
    config = parse_config(sys.stdin.buffer.readline() if text == "-" else text)
    return msgspec.structs.replace(config, faults=(*config.faults, *map(parse_fault, faults)))


async def _run(config: MockConfig, arguments: argparse.Namespace, ssl: tls.SSLContext | None) -> None:
    tune_process()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):  # Windows has no such thing
            loop.add_signal_handler(number, stop.set)
    _watch_stdin(loop, stop)
    summary = await serve(config, host=arguments.host, port=arguments.port, ssl=ssl, stop=stop, on_ready=_announce)
    sys.stdout.buffer.write(msgspec.json.encode(summary) + b"\n")
    sys.stdout.flush()


def _announce(server: MockServer) -> None:
    sys.stdout.buffer.write(orjson.dumps({"base_url": server.base_url}) + b"\n")
    sys.stdout.flush()


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when a piped standard input ends; a terminal, a file or /dev/null says nothing about the parent."""
    descriptor = 0
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:  # closed
        return
    if not (stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)):
        return

    def read() -> None:
        if not os.read(descriptor, 65536):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, read)


if __name__ == "__main__":
    sys.exit(main())
