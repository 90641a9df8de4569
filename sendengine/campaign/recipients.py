"""Opens a file of recipients, whatever its format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sendengine.campaign.blocks import Digest, Stamp
from sendengine.campaign.csvrows import read_csv
from sendengine.campaign.jsonrows import read_jsonl
from sendengine.campaign.tables import START, Chunks, Mark
from sendengine.errors import InputError

_READERS: Final = {".csv": read_csv, ".jsonl": read_jsonl}


def read_recipients(
    path: Path,
    *,
    column: str,
    others: Sequence[str] = (),
    start: Mark = START,
    digest: Digest | None = None,
    stamp: Stamp | None = None,
) -> Chunks:
    """Read ``.csv`` or ``.jsonl``, gzipped (``.gz``) or not, a chunk at a time; raises InputError.

    ``start`` is where an earlier reading had a chunk begin. With ``digest``, the whole file goes through it; with
    ``stamp``, it must be as it was then all the while.
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise InputError(
            f"{path}: a file of recipients ends in .csv, .csv.gz, .jsonl or .jsonl.gz; rename or convert it"
        )
    return _READERS[suffix](path, column=column, others=others, start=start, digest=digest, stamp=stamp)
