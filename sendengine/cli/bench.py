"""``sendengine bench``: offers a load to a mock server or a test server of yours, and says what came of it.

Units: ``_s`` is seconds, ``_ms`` milliseconds; ``rate`` is jobs a second.
"""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeVar

import click
from click.core import ParameterSource
from msgspec import Struct
from msgspec.structs import replace

from sendengine.bench.compare import Comparison, compared
from sendengine.bench.drawing import plots
from sendengine.bench.machine import this_machine
from sendengine.bench.mix import Mix
from sendengine.bench.result import FILE, Options, Result, read_result, rendered, write_files
from sendengine.bench.run import BenchRun, Found, Load
from sendengine.campaign.exits import Exit
from sendengine.cli.benchtable import comparison_lines, result_lines
from sendengine.cli.benchtarget import LATENCY_MS, PLAN, Asked, Target, opened
from sendengine.cli.display import shown
from sendengine.cli.loop import run
from sendengine.cli.options import config_option, json_option, number_of, share_of
from sendengine.cli.output import note, say, show_json
from sendengine.cli.progress import Glance
from sendengine.cli.signals import Stop, listening
from sendengine.core.onesignal import Plan
from sendengine.engine import SendEngine
from sendengine.errors import StorageError
from sendengine.telemetry.allocator import tune_allocator
from sendengine.telemetry.collector import tune_collector

_LONGEST_S: Final = 86_400.0
_MOST: Final = 1_000_000.0  # jobs a second
_UPDATES: Final = "14.3%"  # about as the ceilings are: 6,000 notifications and 1,000 user updates
_UNSAID: Final = frozenset({"is_json", "compare", "results_dir"})  # options that change nothing of what is measured

_Command = TypeVar("_Command", bound=Callable[..., Any])  # click's decorators know no more of a function than this


def _load_options(command: _Command) -> _Command:
    """Add the options that say what is offered."""
    rate = number_of("jobs/s", most=_MOST, hint="; leave it out to go as fast as it goes")
    seconds = number_of("seconds", most=_LONGEST_S)
    for option in (
        click.option("--users", type=click.IntRange(1), default=1_000_000, show_default=True, help="Made-up users."),
        click.option("--pack", is_flag=True, help="Let notifications share requests; else each job is a request."),
        click.option(
            "--recipients", type=click.IntRange(1, 20_000), default=1, show_default=True, help="Of each notification."
        ),
        click.option("--high", type=share_of, default="0", show_default=True, metavar="PART", help="Of them urgent."),
        click.option(
            "--updates",
            type=share_of,
            default=_UPDATES,
            show_default=True,
            metavar="PART",
            help="Of them user updates.",
        ),
        click.option("--seconds", type=seconds, default="10", show_default=True, metavar="N", help="How long."),
        click.option("--rate", type=rate, metavar="N", help="Jobs/s, come what may; default: as fast as it goes."),
    ):
        command = option(command)
    return command


def _way_options(command: _Command) -> _Command:
    """Add the options that say where it goes, and how."""
    latency = number_of("milliseconds", most=600_000, is_zero_fine=True)
    for option in (
        click.option("--connections", type=click.IntRange(1, 1_000_000), help="At most. [default: the app's, or 4000]"),
        click.option("--transport", type=click.Choice(["direct", "aiohttp"]), help="[default: the app's, or direct]"),
        click.option("--lift-limits", "lifted", is_flag=True, help="No ceilings, here and in the mock server."),
        click.option("--plan", type=click.Choice(["free", "paid"]), help=f"Whose ceilings. [default: {PLAN}]"),
        click.option("--latency-p99-ms", type=latency, metavar="N", help="Makes the mock server's lognormal."),
        click.option("--latency-ms", type=latency, metavar="N", help=f"Of the mock server. [default: {LATENCY_MS:g}]"),
        click.option("--app", metavar="NAME", help="Use an app of the settings: id, key, ceilings, address."),
        click.option("--address", metavar="URL", help="A test server of yours; default: a mock server is started."),
    ):
        command = option(command)
    return command


@click.command("bench")
@_load_options
@_way_options
@click.option(
    "--compare", type=click.Path(path_type=Path), metavar="OLD", help="Say what changed since OLD bench.json."
)
@click.option(
    "--results-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default="bench-results",
    show_default=True,
    metavar="DIR",
    help="Where each benchmark leaves a folder with its result and plots.",
)
@config_option
@json_option
@click.pass_context
def bench_command(  # noqa: PLR0913 - click hands each option over as an argument
    ctx: click.Context,
    *,
    rate: float | None,
    seconds: float,
    updates: float,
    high: float,
    recipients: int,
    pack: bool,
    users: int,
    address: str | None,
    app: str | None,
    latency_ms: float | None,
    latency_p99_ms: float | None,
    plan: Plan | None,
    lifted: bool,
    transport: Literal["direct", "aiohttp"] | None,
    connections: int | None,
    compare: Path | None,
    results_dir: Path,
    config: Path,
    is_json: bool,
) -> None:
    """Offer jobs at a rate, and say what came of it.

    Rates, latencies, CPU, and what bound it. Goes to a mock server that it starts on this machine, or to --address:
    this machine, or a server that the settings list under [bench]. Never to OneSignal. At --rate, latency counts from
    the instant at which a job was meant to start, late or not.
    """
    mix = Mix(updates=updates, high=high, recipients=recipients, pack=pack, users=users)
    asked = Asked(
        address=address,
        app=app,
        config=config,
        is_named=ctx.get_parameter_source("config") is ParameterSource.COMMANDLINE,
        plan=plan,
        lifted=lifted,
        transport=transport,
        connections=connections,
        latency_ms=latency_ms,
        latency_p99_ms=latency_p99_ms,
    )
    old = None if compare is None else read_result(compare)
    load = Load(mix=mix, rate=rate, seconds=seconds)
    with _made(results_dir) as folder, TemporaryDirectory(prefix="sendengine-bench-") as state:
        done = run(lambda: _measure(asked, load, state_dir=Path(state), command=_spelled(ctx)))
        comparison = None if old is None else compared(old, done.result)
        drawn = plots(done.result)
        try:
            if is_json:
                show_json({"directory": folder, "result": done.result, "comparison": comparison})
            else:
                _show(done.result, comparison)
        finally:  # where nobody reads on, or that disk is full, the files are written all the same
            write_files(folder, [(FILE, rendered(done.result)), *drawn])
    if not is_json:
        say(f"\n{folder}:\n  {FILE}, {', '.join(name for name, _ in drawn)}")
    raise click.exceptions.Exit(done.exit_code)


class _Done(Struct, frozen=True):
    result: Result
    exit_code: int


async def _measure(asked: Asked, load: Load, *, state_dir: Path, command: str) -> _Done:
    machine, started_at = this_machine(), datetime.now(UTC)
    async with opened(asked, state_dir=state_dir) as target:
        note(f"Offering jobs to {target.url} for {load.seconds:,g} s. Ctrl-C ends it early.")
        found, stop = await _perform(target, load, is_lifted=asked.lifted)
        ledger = await target.ledger()
    result = Result(
        command=command,
        started_at=started_at.isoformat(timespec="seconds"),
        target="a mock server of its own" if asked.is_ours else target.url,
        partial=bool(found.why),
        why=found.why,
        seconds=round(found.seconds, 3),
        options=_options(asked, load, target),
        machine=machine,
        lanes={name: replace(lane, server=ledger.get(name)) for name, lane in found.lanes.items()},
        cpu=found.cpu,
        longest_pause_ms=found.longest_pause_ms,
        submitted_late_ms=found.submitted_late_ms,
        timeline=found.timeline,
        curves=found.curves,
    )
    return _Done(result, _exit_code(found, stop))


async def _perform(target: Target, load: Load, *, is_lifted: bool) -> tuple[Found, Stop]:
    name, _ = target.app
    async with SendEngine(target.settings) as engine:
        tune_allocator()
        tune_collector()
        connections = target.settings.transport.max_connections
        bench = BenchRun(engine, load, app=name, connections=connections, is_lifted=is_lifted)
        stop = Stop(on_drain=bench.stop, on_abort=bench.abort)

        def look() -> Glance:
            stats = engine.stats()
            lanes = {name: lane for name, lane in stats.lanes.items() if lane.requests}
            if is_lifted:
                lanes = {name: replace(lane, ceiling=inf) for name, lane in lanes.items()}
            total = ceil(load.seconds)
            return Glance("bench", "seconds", min(total, int(bench.at_s)), total, lanes, stats.taken_at_s)

        with listening(stop):
            async with shown(look):
                return await bench.measure(), stop


def _options(asked: Asked, load: Load, target: Target) -> Options:
    _, app = target.app
    transport, mix = target.settings.transport, load.mix
    return Options(
        rate=load.rate,
        seconds=load.seconds,
        updates=mix.updates,
        high=mix.high,
        recipients=mix.recipients,
        pack=mix.pack,
        users=mix.users,
        plan=app.plan,
        lifted=asked.lifted,
        transport=str(transport.kind),
        protocol=transport.protocol,
        connections=transport.max_connections,
        latency_ms=asked.median_ms if asked.is_ours else None,
        latency_p99_ms=(asked.latency_p99_ms or 0.0) if asked.is_ours else None,
    )


def _exit_code(found: Found, stop: Stop) -> int:
    if stop.is_draining:
        return Exit.ABORTED if stop.is_aborting else Exit.STOPPED
    if found.is_held:
        return Exit.GUARD
    return Exit.OK if all(lane.is_fine for lane in found.lanes.values()) else Exit.NOT_ALL_ACCEPTED


@contextmanager
def _made(results_dir: Path) -> Iterator[Path]:
    """Make a folder before anything is measured, and take it away where nothing came of it. Raises StorageError."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")[:-3]  # as runs are called
    folder = results_dir / f"{stamp}Z"
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StorageError(f"{folder}: cannot be made: {error.strerror}; choose another --results-dir") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # what it holds stays
            folder.rmdir()


def _show(result: Result, comparison: Comparison | None) -> None:
    say("\n".join(result_lines(result)))
    if comparison is not None:
        say("\n" + "\n".join(comparison_lines(comparison)))


def _spelled(ctx: click.Context) -> str:
    """Write the command as it would be typed, without what does not change what is measured."""
    words = ["sendengine", "bench"]
    for parameter in ctx.command.params:
        name = parameter.name or ""
        if name in _UNSAID or ctx.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value = ctx.params[name]
        words.append(parameter.opts[0])
        if value is not True:
            words.append(f"{value:.6g}" if isinstance(value, float) else str(value))
    return shlex.join(words)
