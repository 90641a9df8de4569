"""What somebody wants of a run that is going on: a file beside its journal, which the run looks at twice a second.

It holds what is wanted, not steps: so a run that missed one order obeys all of them with the next.

Units: ``rate`` is requests a second.
"""

import time
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from sendengine.campaign.rundir import CONTROL, RunDir
from sendengine.errors import StorageError


class Order(Struct, frozen=True):
    """What is wanted. ``number`` goes up with every order; ``rate`` None is as the settings say."""

    number: int = 0
    is_paused: bool = False
    rate: Annotated[float, Meta(gt=0)] | None = None


class DamagedOrderError(StorageError):
    """What is wanted cannot be read."""


def read_order(run_dir: RunDir) -> Order:
    """Return what is wanted; nothing special where nobody has said anything. Raises StorageError."""
    if not run_dir.has(CONTROL):
        return Order()
    try:
        return msgspec.json.decode(run_dir.read(CONTROL), type=Order)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DamagedOrderError(f"{run_dir.path / CONTROL}: is damaged: {error}; remove it") from None


def give_order(run_dir: RunDir, **wanted: object) -> Order:
    """Change what is wanted, and return it; raises StorageError."""
    before = read_order(run_dir)
    order = replace(before, number=before.number + 1, **wanted)
    run_dir.write(CONTROL, msgspec.json.encode(order), is_durable=False)
    return order


def forget_orders(run_dir: RunDir) -> None:
    """Begin as the settings say, whatever was wanted of an earlier process; orders keep counting up."""
    if not run_dir.has(CONTROL):
        return
    try:
        give_order(run_dir, is_paused=False, rate=None)
    except DamagedOrderError:  # it says nothing any more; numbers go up all the same
        run_dir.write(CONTROL, msgspec.json.encode(Order(number=int(time.time()))), is_durable=False)
