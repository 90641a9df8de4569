"""Carries a prepared run out, and tells what came of it: the part that `send`, `resume` and `retry` have in common."""

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Final

import click

from sendengine.campaign.exits import CUT_SHORT
from sendengine.campaign.run import RunResult
from sendengine.campaign.rundir import FAILURES, MANIFEST, REQUESTS, RunDir
from sendengine.cli import summary
from sendengine.cli.loop import run
from sendengine.cli.options import DEFAULT_RUNS
from sendengine.cli.output import note, say, show_json
from sendengine.cli.session import Session, perform
from sendengine.errors import StorageError
from sendengine.settings import DEFAULT_FILE

_WITH_SETTINGS: Final = frozenset({"resume", "retry"})


def carry_out(session: Session, *, is_json: bool) -> int:
    """Send, tell what came of it, and return the exit code. Raises what `perform` raises."""
    try:
        result = run(lambda: perform(session))
    except StorageError as error:  # its journal cannot be opened, or its files
        if not session.run_dir.has(MANIFEST):
            raise
        raise StorageError(f"{error}; when that is mended, go on: {_how_to_go_on(session)}") from error
    except KeyboardInterrupt:  # before it sends, or after: while it does, signals have two steps
        if session.run_dir.has(MANIFEST):
            note(f"Go on: {_how_to_go_on(session)}")
        raise
    with suppress(BrokenPipeError):  # where nobody reads on, the exit code and the report still tell
        _show(result, session.run_dir.path, is_json=is_json)
    if result.exit_code in CUT_SHORT and session.run_dir.has(MANIFEST):
        note(f"Go on: {_how_to_go_on(session)}")
    return result.exit_code


def _show(result: RunResult, folder: Path, *, is_json: bool) -> None:
    if is_json:
        show_json(summary.as_json(result.report, folder=folder, why=result.why))
        return
    for line in summary.summary_lines(result.report, folder=folder, why=result.why):
        say(line)


def _how_to_go_on(session: Session) -> str:
    if (
        session.is_resumable or session.work.is_campaign
    ):  # a campaign makes the same requests again, under the same keys
        return resume_line(session.run_dir)
    path = session.run_dir.path
    return (
        f'the run kept no journal (durability = "memory"). What was begun and not sent stands in {path / FAILURES}, '
        f"which `sendengine send` takes; what was never begun has no line in {path / REQUESTS}"
    )


def resume_line(run_dir: RunDir) -> str:
    """The command that goes on with a run."""
    return command_line("resume", run_dir)


def command_line(command: str, run_dir: RunDir) -> str:
    """A command about a run, as it is to be typed here."""
    runs_dir = run_dir.path.parent
    elsewhere = "" if runs_dir == DEFAULT_RUNS else f" --runs-dir {shlex.quote(str(runs_dir))}"
    return f"sendengine {command} {run_dir.run}{elsewhere}{_config_of(command)}"


def _config_of(command: str) -> str:
    """The settings file of the command that runs now, where another command needs it and would not find it."""
    context = click.get_current_context(silent=True)
    config = None if context is None else context.params.get("config")
    if config is None or config == Path(DEFAULT_FILE) or command not in _WITH_SETTINGS:
        return ""
    return f" --config {shlex.quote(str(config))}"
