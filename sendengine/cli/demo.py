"""``sendengine demo``: a campaign and a file of mixed jobs against the mock server, at the documented ceilings.

Both are sent by what `sendengine send` uses. At the end the reports are compared with the mock server's own ledger.

Units: ``_ms`` is milliseconds.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import click

from sendengine.campaign.exits import Exit
from sendengine.campaign.run import RunOptions, RunResult
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.work import CampaignInput, load_input
from sendengine.cli.democheck import Row, compared
from sendengine.cli.demofiles import write_campaign, write_jobs
from sendengine.cli.forecast import forecast
from sendengine.cli.loop import run
from sendengine.cli.options import json_option, runs_dir_option
from sendengine.cli.output import note, say, show_json
from sendengine.cli.session import Session, perform
from sendengine.cli.summary import as_json, summary_lines
from sendengine.mockserver import AppConfig, MockConfig, MockProcess
from sendengine.settings import AppSettings, Settings

APP: Final = "demo"
_APP_ID: Final = "d3300000-0000-4000-8000-000000000001"
_LATENCY_MS: Final = 100.0


@click.command("demo")
@click.option("--recipients", type=click.IntRange(1), default=100_000, show_default=True, help="Of the campaign.")
@click.option("--jobs", type=click.IntRange(2), default=20_000, show_default=True, help="Half of them user updates.")
@runs_dir_option
@json_option
def demo_command(*, recipients: int, jobs: int, runs_dir: Path, is_json: bool) -> None:
    """Send two inputs to a mock server, and check the reports.

    A campaign and a file of mixed jobs, as fast as the documented ceilings allow. Nothing leaves this machine. Exits 0
    where the reports equal what the mock server counted, and 1 where they differ.
    """
    with TemporaryDirectory(prefix="sendengine-demo-") as folder:
        inputs = (write_campaign(Path(folder), count=recipients), write_jobs(Path(folder), count=jobs))
        code = run(lambda: _demonstrate(inputs, Path(folder), runs_dir, is_json=is_json))
    raise click.exceptions.Exit(code)


async def _demonstrate(inputs: Sequence[Path], folder: Path, runs_dir: Path, *, is_json: bool) -> int:
    config = MockConfig(default=AppConfig(name="Demo"), latency_ms=_LATENCY_MS)
    async with MockProcess(config) as mock:
        note(f"A mock OneSignal at {mock.base_url} counts every second, and answers after {_LATENCY_MS:.0f} ms.")
        app = AppSettings(app_id=_APP_ID, api_key="demo", plan="paid", base_url=mock.base_url)
        settings = Settings(apps={APP: app}, state_dir=folder / "state")
        done: list[tuple[RunResult, Path]] = []
        for path in inputs:
            done.append(await _send(path, settings, runs_dir))
            result, place = done[-1]
            if not is_json:
                say("\n".join(summary_lines(result.report, folder=place, why=result.why)))
            if result.exit_code:
                return result.exit_code
        rows = compared([result.report for result, _ in done], await mock.summary())
    is_equal = all(row.is_equal for row in rows)
    if is_json:
        reports = [as_json(result.report, folder=place, why=result.why) for result, place in done]
        show_json({"runs": reports, "comparison": rows, "equal": is_equal})
    else:
        _show(rows)
        say("The reports equal the ledger." if is_equal else "The reports differ from the ledger.")
    return Exit.OK if is_equal else Exit.INTERNAL


async def _send(path: Path, settings: Settings, runs_dir: Path) -> tuple[RunResult, Path]:
    """Send one input, as `sendengine send` does once it has asked."""
    loaded = load_input(path, settings)
    if isinstance(loaded, CampaignInput):
        work = loaded.work(loaded.plan(settings, now=datetime.now(UTC)))
    else:
        work = loaded.work()
    run_dir = RunDir.make(runs_dir, name=loaded.name, now=datetime.now(UTC))
    session = Session(
        work=work,
        run_dir=run_dir,
        settings=settings,
        apps=(APP,),
        lanes=forecast(loaded, work, settings, is_exact=False).requests,
        options=RunOptions(max_error_rate=None),
    )
    return await perform(session), run_dir.path


def _show(rows: Sequence[Row]) -> None:
    say(f"\n{'':<40}{'reports':>12}{'mock server':>14}")
    for row in rows:
        say(f"{row.what:<40}{row.reports:>12,}{row.ledger:>14,}  {'equal' if row.is_equal else 'DIFFERS'}")
