"""Opens a file of recipients, whatever its format."""

from pathlib import Path
from typing import Final

from sendengine.campaign.csvrows import read_csv
from sendengine.campaign.jsonrows import read_jsonl
from sendengine.campaign.tables import Chunks, Reading
from sendengine.errors import InputError

_READERS: Final = {".csv": read_csv, ".jsonl": read_jsonl}


def read_recipients(reading: Reading) -> Chunks:
    """Read ``.csv`` or ``.jsonl``, gzipped (``.gz``) or not, a chunk at a time; raises InputError."""
    suffix = Path(reading.path.name.lower().removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise InputError(
            f"{reading.path}: a file of recipients ends in .csv, .csv.gz, .jsonl or .jsonl.gz; rename or convert it"
        )
    return _READERS[suffix](reading)
