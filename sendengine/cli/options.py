"""Options that several commands share; they stand after the command."""

from collections.abc import Callable, Mapping
from math import inf
from pathlib import Path
from typing import Final

import click

from sendengine.campaign.errorbudget import DEFAULT_RATE, WINDOW
from sendengine.settings import DEFAULT_FILE

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600}

config_option: Final = click.option(
    "--config",
    "config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_FILE,
    show_default=True,
    metavar="FILE",
    help="The settings file.",
)
DEFAULT_RUNS: Final = Path("runs")
runs_dir_option: Final = click.option(
    "--runs-dir",
    "runs_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_RUNS,
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


def number_of(what: str, *, most: float, hint: str = "", is_zero_fine: bool = False) -> Callable[[str], float]:
    """Make a reader of numbers above 0 that says what they are of, and the most that makes sense."""

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = -1.0
        if 0 < found <= most or (found == 0 and is_zero_fine):
            return found
        low = "from 0" if is_zero_fine else "above 0"
        raise click.BadParameter(f"{text!r} is no number of {what} {low} and up to {most:,.0f}{hint}")

    return number


def _some_share_of(text: str) -> float:
    if not (share := share_of(text)):
        raise click.BadParameter(f"{text!r} must be above 0")
    return share


def seconds_of(text: str) -> float:
    """Read a length of time: ``90``, ``90s``, ``10m``, or ``6h``."""
    unit_s = _UNITS_S.get(text[-1:], 1)
    try:
        seconds = float(text[:-1] if text[-1:] in _UNITS_S else text) * unit_s
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < inf:
        raise click.BadParameter(f"{text!r} is no time such as 90s, 10m or 6h")
    return seconds


requests_per_s: Final = number_of("requests/s", most=1e9)
max_error_rate_option: Final = click.option(
    "--max-error-rate",
    type=share_of,
    metavar="PART",
    help=f"Stop, resumable, when more of the last {WINDOW} requests fail.  "
    f"[default: {DEFAULT_RATE:.0%} of a campaign, none of a jobs file; of what is resumed, as it was begun]",
)
yes_option: Final = click.option("--yes", "is_sure", is_flag=True, help="Do not ask.")
share_option: Final = click.option(
    "--share",
    type=_some_share_of,
    metavar="PART",
    help="Use this part of the ceilings and of the application limit: 60%, or 0.6; never above the settings.",
)
rate_option: Final = click.option(
    "--rate",
    type=requests_per_s,
    metavar="N",
    help="At most N requests/s in each lane; never above the settings.",
)
max_outage_option: Final = click.option(
    "--max-outage",
    "max_outage_s",
    type=seconds_of,
    metavar="TIME",
    help="Stop, resumable, when everything has failed for so long: 90s, 10m, 6h.  [default: the settings']",
)


def overrides_of(max_outage_s: float | None) -> Mapping[str, float]:
    """What the command line says of settings, for `load_settings`."""
    return {} if max_outage_s is None else {"retry.max_outage_s": max_outage_s}
