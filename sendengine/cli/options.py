"""Options that several commands share; they stand after the command."""

from pathlib import Path
from typing import Final

import click

from sendengine.settings import DEFAULT_FILE

config_option: Final = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_FILE,
    show_default=True,
    metavar="FILE",
    help="The settings file.",
)
runs_dir_option: Final = click.option(
    "--runs-dir",
    "runs_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default="runs",
    show_default=True,
    metavar="DIR",
    help="Where each run leaves its report.",
)
json_option: Final = click.option(
    "--json", "is_json", is_flag=True, help="Write the result as JSON on standard output, for programs."
)


def share_of(text: str) -> float:
    """Read a part of something: ``2%``, or ``0.02``."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{text!r} is no part such as 2% or 0.02")
    return share


yes_option: Final = click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
share_option: Final = click.option(
    "--share",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="PART",
    help="Use this part of the ceilings, above 0 and at most 1; never above the settings.",
)
rate_option: Final = click.option(
    "--rate",
    type=click.FloatRange(0, min_open=True),
    metavar="N",
    help="At most N requests/s in each lane; never above the settings.",
)
