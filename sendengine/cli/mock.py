"""``sendengine mock``: a OneSignal on this machine to send against, with a switch for everything that it does."""

import asyncio
import signal
import ssl as tls
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from sendengine.cli.loop import run
from sendengine.cli.options import json_option
from sendengine.cli.output import say, show_json_line
from sendengine.errors import SettingsError
from sendengine.mockserver import (
    MockConfig,
    MockServer,
    Option,
    config_from,
    options,
    parse_config,
    self_made,
    serve,
    server_context,
    summary_lines,
    tune_process,
)
from sendengine.mockserver.options import OptionValue
from sendengine.mockserver.server import cannot_listen

_TYPES: Final[Mapping[str, type[int] | type[float] | type[str]]] = {"int": int, "float": float}
_METAVARS: Final = {"steps": "SECOND=SHARE,…", "fault": "KIND[:SHARE][,NAME=VALUE…]"}

_A_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)

_Command = TypeVar("_Command", bound=Callable[..., Any])  # click's decorators know no more of a function than this


def _switches(command: _Command) -> _Command:
    """Add an option for each switch of the mock server."""
    for switch in reversed(options()):
        command = _option(switch)(command)
    return command


def _option(switch: Option) -> Callable[[_Command], _Command]:
    about = f"{switch.help} May be given several times." if switch.many else switch.help
    if switch.default not in {None, ()}:
        about += f" [default: {_shown(switch.default)}]"
    if switch.kind == "flag":
        off = f"{switch.name}/--no-{switch.name.removeprefix('--')}"
        return click.option(off, default=None, help=about)
    kind = click.Choice(switch.choices) if switch.choices else _TYPES.get(switch.kind, str)
    return click.option(switch.name, type=kind, multiple=switch.many, metavar=_METAVARS.get(switch.kind), help=about)


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(str(each) or '""' for each in value)
    return f"{value}"


@click.command("mock")
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen.")
@click.option("--port", type=click.IntRange(0, 65_535), default=0, help="The port; 0, the default, takes any free one.")
@click.option(
    "--behaviour",
    type=_A_FILE,
    metavar="FILE",
    help="All switches as JSON, with apps of their own; the options below go on top.",
)
@click.option("--tls", "has_tls", is_flag=True, help="Speak TLS, with a certificate that is made for the occasion.")
@click.option("--tls-cert", type=_A_FILE, metavar="FILE", help="Speak TLS with this certificate (PEM).")
@click.option("--tls-key", type=_A_FILE, metavar="FILE", help="Its key, where that is in another file.")
@json_option
@_switches
def mock_command(
    *,
    host: str,
    port: int,
    behaviour: Path | None,
    has_tls: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    is_json: bool,
    **given: OptionValue,
) -> None:
    """Serve a OneSignal on this machine that enforces its limits.

    It misbehaves on request. Prints its base URL, and at Ctrl-C what it has seen. By default any app id and any key
    will do. HTTP/1.1 and HTTP/2 are spoken on the same port.
    """
    if tls_key is not None and tls_cert is None:
        raise click.UsageError("--tls-key: needs --tls-cert")
    base = parse_config(behaviour.read_bytes()) if behaviour else MockConfig()
    config = config_from({_spelled(name): value for name, value in given.items() if value not in {None, ()}}, base=base)
    with ExitStack() as stack:
        made = stack.enter_context(self_made(host)) if has_tls and tls_cert is None else None
        certificate = tls_cert or made
        ssl = server_context(certificate, tls_key) if certificate is not None else None
        try:
            run(lambda: _serve(config, host=host, port=port, ssl=ssl, made=made, is_json=is_json))
        except BrokenPipeError:  # nobody reads what it says
            raise
        except OSError as error:
            raise SettingsError(f"{cannot_listen(host, port, error)}; choose another --host or --port") from None


def _spelled(parameter: str) -> str:
    return f"--{parameter.replace('_', '-')}"


async def _serve(
    config: MockConfig, *, host: str, port: int, ssl: tls.SSLContext | None, made: Path | None, is_json: bool
) -> None:
    tune_process()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def announce(server: MockServer) -> None:
        if is_json:
            show_json_line({"base_url": server.base_url} | ({"ca_file": str(made)} if made else {}))
        else:
            trust = f" Set transport.ca_file to {made}." if made else ""
            say(f"{server.base_url}\nSet base_url to it.{trust} Ctrl-C ends it with a summary.")

    summary = await serve(config, host=host, port=port, ssl=ssl, stop=stop, on_ready=announce)
    if is_json:
        show_json_line(summary)
    else:
        say("\n" + "\n".join(summary_lines(summary)))
