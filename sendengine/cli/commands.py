"""All commands, and what becomes of the errors that they raise."""

from typing import Final

import click

from sendengine.campaign.exits import Exit, exit_of
from sendengine.cli.bench import bench_command
from sendengine.cli.config import config_group
from sendengine.cli.dead import dead_group
from sendengine.cli.demo import demo_command
from sendengine.cli.doctor import doctor_command
from sendengine.cli.init import init_command
from sendengine.cli.mock import mock_command
from sendengine.cli.output import note, show_error
from sendengine.cli.report import report_command
from sendengine.cli.resume import resume_command
from sendengine.cli.retry import retry_command
from sendengine.cli.runs import runs_group
from sendengine.cli.send import send_command
from sendengine.cli.validate import validate_command
from sendengine.cli.watching import continue_command, pause_command, rate_command, status_command
from sendengine.errors import SendEngineError


class Commands(click.Group):
    """A group whose commands end in an exit code and a few plain lines, never in a traceback of an expected error."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that the arguments name."""
        try:
            return super().invoke(ctx)
        except SendEngineError as error:
            show_error(error)
            ctx.exit(exit_of(error))
        except (KeyboardInterrupt, click.Abort):
            note("sendengine: stopped")
            ctx.exit(Exit.ABORTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands in the order in which a person meets them."""
        del ctx
        return list(self.commands)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="sendengine")
def cli() -> None:
    """Send through OneSignal's REST API as fast as its documented ceilings allow, and never faster.

    INPUT is a campaign (.toml), a file of jobs (.jsonl, .jsonl.gz), or - for jobs on standard input. RUN is a run's
    name, the start of it, its directory, "latest", or the name of a campaign that only one run sends.

    Exit codes: 0 all accepted, or unreachable; 1 a fault of sendengine itself; 2 usage, settings or input invalid,
    nothing sent; 3 finished, some not accepted; 4 stopped by a guard; 5 storage failed; 75 stopped early, resumable;
    130 second Ctrl-C.
    """


COMMANDS: Final = (
    demo_command,
    mock_command,
    bench_command,
    init_command,
    validate_command,
    send_command,
    resume_command,
    retry_command,
    status_command,
    pause_command,
    continue_command,
    rate_command,
    report_command,
    runs_group,
    dead_group,
    config_group,
    doctor_command,
)
for _command in COMMANDS:
    cli.add_command(_command)
