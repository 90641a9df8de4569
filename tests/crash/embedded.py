"""A program with an embedded engine: it submits jobs, notes what it was promised, and what came of it."""

import asyncio
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from sendengine import Job, Outcome, SendEngine, UpdateUser, load_settings
from sendengine.core.joblines import read_job
from sendengine.core.outcomes import OUTCOME_NAMES
from sendengine.ports import Part, RequestRecord
from tests.crash.inputs import SHARDS

NOTES = "notes.txt"


class Notebook:
    """What a program knows, written down at once: the numbers of jobs, and what came of them."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def intend(self, number: int) -> None:
        self._note(f"intend {number}")

    def promise(self, number: int) -> None:
        self._note(f"promise {number}")

    def request_settled(self, record: RequestRecord) -> None:
        """Requests are the ledger's."""

    def job_settled(self, job: Job, outcome: Outcome, parts: Sequence[Part]) -> None:
        del parts
        self._note(f"settle {number_of(job)} {OUTCOME_NAMES[type(outcome)]}")

    def _note(self, text: str) -> None:
        os.write(self._file, f"{text}\n".encode())


def jobs_of(first: int, last: int) -> list[tuple[int, Job]]:
    """Some of the jobs of jobs.jsonl, and those before them that have a key and are doubtful."""
    doubtful = intended_in_vain()
    lines = Path("jobs.jsonl").read_bytes().splitlines()
    numbered = [(number, read_job(line)) for number, line in enumerate(lines)]
    return [
        (number, job)
        for number, job in numbered
        if first <= number < last or (number < first and number in doubtful and job.idempotency_key)
    ]


def intended_in_vain() -> set[int]:
    """The jobs that earlier processes submitted, and did not hear whether they were taken."""
    path = Path(NOTES)
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return {int(line[1]) for line in lines if line[0] == "intend"} - {
        int(line[1]) for line in lines if line[0] == "promise"
    }


def number_of(job: Job) -> int:
    """The place of a job in its input."""
    if isinstance(job, UpdateUser):
        return next(int(name[1:]) for name in job.tags if name.startswith("j"))
    return int(job.to.ids[0].removeprefix("bad").removeprefix("r").partition("-")[0])


def live(first: int, last: int, shards: Iterable[int] = range(SHARDS)) -> None:
    """Submit some of the jobs of jobs.jsonl, and send them and what an earlier process left.

    Those with a key of which an earlier process did not hear whether they were taken are submitted once more.
    """
    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.INFO)
    asyncio.run(_live(first, last, shards))


async def _live(first: int, last: int, shards: Iterable[int]) -> None:
    jobs = jobs_of(first, last)
    book = Notebook(Path(NOTES))
    async with SendEngine(load_settings("sendengine.toml"), observer=book) as engine:
        wanted = [[(number, job) for number, job in jobs if _shard(number, job) == shard] for shard in shards]
        await asyncio.gather(*(_submit(engine, book, own) for own in wanted))


async def _submit(engine: SendEngine, book: Notebook, jobs: Iterable[tuple[int, Job]]) -> None:
    for number, job in jobs:
        book.intend(number)
        await engine.submit(job)
        book.promise(number)


def _shard(number: int, job: Job) -> int:
    if isinstance(job, UpdateUser):
        return int(job.user.ids[0].removeprefix("user")) % SHARDS
    return number % SHARDS
