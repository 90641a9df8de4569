"""Makes the run that a retry is: its input, its journal with the requests that go again, and its manifest.

Units: ``_s`` seconds; instants are seconds since the epoch.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Literal

import orjson

from sendengine.campaign import manifest as manifests
from sendengine.campaign.blocks import file_digest, file_stamp
from sendengine.campaign.books import BOOKS, parse_books
from sendengine.campaign.manifest import Manifest, input_file
from sendengine.campaign.retrying import Kept, Replay, Retry, seal_of
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.rundir import FAILURES, JOURNAL, RunDir
from sendengine.core.joblines import job_fields
from sendengine.core.jobs import Job
from sendengine.errors import StorageError
from sendengine.journal.campaign_ledger import CampaignLedger
from sendengine.journal.outbox import Outbox
from sendengine.journal.store import Store
from sendengine.settings import JournalSettings

JOBS: Final = "input.jsonl"


async def kept_of(run_dir: RunDir, manifest: Manifest) -> Kept:
    """Return what a run's journal has kept; nothing in particular without a journal. Raises StorageError."""
    if not run_dir.has(JOURNAL):
        return Kept()
    store = await Store.open(run_dir.path / JOURNAL)
    try:
        contents = store.contents()
        books = parse_books(contents.values.get(BOOKS))
        known_bytes = 0 if books is None else books.sizes.get(FAILURES, 0)
        if manifest.kind == "campaign":
            return Kept(CampaignLedger(store, contents).kept_requests(), known_bytes)
        kept = await Outbox(store, contents, settings=JournalSettings()).kept_requests()
        return Kept({each.seal.key: each.seal for each in kept if each.seal.key is not None}, known_bytes)
    finally:
        await store.aclose()


def write_jobs(run_dir: RunDir, retry: Retry) -> None:
    """Write the new jobs as the run's input; raises StorageError."""
    lines = b"".join(orjson.dumps(job_fields(job), option=orjson.OPT_APPEND_NEWLINE) for job in retry.new)
    run_dir.write(JOBS, lines)


async def fill_journal(
    run_dir: RunDir, retry: Retry, *, app_of: Callable[[Job], str], durability: Literal["durable", "relaxed"]
) -> None:
    """Put the requests that go again into the run's journal, as if the run had sealed them; raises StorageError."""
    store = await Store.open(run_dir.path / JOURNAL, durability=durability)
    try:
        outbox = Outbox(store, store.contents(), settings=JournalSettings())
        await outbox.recover(when_failed=lambda _: None)
        row = len(retry.new)
        for replay in retry.replays:
            await _put(outbox, replay, row=row, app_of=app_of)
            row += len(replay.jobs)
        await outbox.flush()
    finally:
        await store.aclose()


def save_manifest(
    run_dir: RunDir, before: Manifest, retry: Retry, *, begun_at_s: float, durability: str, identity: str = ""
) -> Manifest:
    """Write the manifest of a retry of the run ``before``, and return it; raises StorageError."""
    path = run_dir.path / JOBS
    oldest_s = before.begun_at_s if before.keys_since_s is None else before.keys_since_s
    manifest = Manifest(
        run=run_dir.run,
        name=before.name,
        kind="jobs",
        begun_at_s=begun_at_s,
        app_ids=before.app_ids,
        input=input_file(path, stamp=file_stamp(path), sha256=file_digest(path)),
        rows=retry.count,
        total=retry.count,
        ending=before.ending,
        durability=durability,
        retry_of=before.run,
        keys_since_s=oldest_s if retry.replays else None,
        identity=identity,
    )
    return manifests.save(run_dir, manifest, Selection())


async def _put(outbox: Outbox, replay: Replay, *, row: int, app_of: Callable[[Job], str]) -> None:
    loop = asyncio.get_running_loop()
    ids: list[int] = []
    for place, job in enumerate(replay.jobs):
        written: asyncio.Future[StorageError | None] = loop.create_future()
        ids.append(outbox.accept(job, app=app_of(job), row=row + place, done=written.set_result))
        if (error := await written) is not None:
            raise error
    await outbox.seal(seal_of(replay, ids))
