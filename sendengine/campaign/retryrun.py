"""Makes the run that a retry is: its input, its journal with the requests that go again, and its manifest.

Units: ``_s`` seconds; instants are seconds since the epoch.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Literal

import orjson

from sendengine.campaign import manifest as manifests
from sendengine.campaign.blocks import file_digest, file_stamp
from sendengine.campaign.books import BOOKS, parse_books
from sendengine.campaign.manifest import Manifest, input_file
from sendengine.campaign.retrying import Kept, Replay, Retry, seal_of
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.rundir import FAILURES, INPUT, JOURNAL, RunDir
from sendengine.core.joblines import job_fields
from sendengine.core.jobs import Job
from sendengine.journal.campaign_ledger import CampaignLedger
from sendengine.journal.outbox import Outbox
from sendengine.journal.records import JobEntry, RequestEntry
from sendengine.journal.store import Store
from sendengine.settings import JournalSettings

_BATCH: Final = 50  # requests in one group of the journal


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
        by_key = {each.seal.key: RequestEntry(each.seal, each.sealed_at_s) for each in kept}
        return Kept({key: entry for key, entry in by_key.items() if key is not None}, known_bytes)
    finally:
        await store.aclose()


def write_jobs(run_dir: RunDir, retry: Retry) -> None:
    """Write the new jobs as the run's input; raises StorageError."""
    lines = b"".join(orjson.dumps(job_fields(job), option=orjson.OPT_APPEND_NEWLINE) for job in retry.new)
    run_dir.write(INPUT, lines)


async def fill_journal(
    run_dir: RunDir,
    retry: Retry,
    *,
    app_of: Callable[[Job], str],
    durability: Literal["durable", "relaxed"],
    is_young: bool = False,
) -> None:
    """Put the requests that go again into the run's journal, as if the run had sealed them; raises StorageError.

    They are as old as they are, so that none goes again when OneSignal may have forgotten its key; with ``is_young`` as
    if they had been sealed now, which somebody who accepts duplicates wants.
    """
    store = await Store.open(run_dir.path / JOURNAL, durability=durability)
    try:
        outbox = Outbox(store, store.contents(), settings=JournalSettings())
        await outbox.recover(when_failed=lambda _: None)
        row = len(retry.new)
        for replays in _batches(retry.replays):
            now_s = time.time()
            jobs: list[JobEntry] = []
            requests: list[RequestEntry] = []
            for replay in replays:
                requests.append(
                    RequestEntry(seal_of(replay, first=len(jobs)), now_s if is_young else replay.sealed_at_s)
                )
                jobs += [JobEntry(job, app_of(job), now_s, row + place) for place, job in enumerate(replay.jobs)]
                row += len(replay.jobs)
            await outbox.put_back(jobs, requests=requests)
    finally:
        await store.aclose()


def _batches(replays: Sequence[Replay]) -> Iterator[Sequence[Replay]]:
    return (replays[start : start + _BATCH] for start in range(0, len(replays), _BATCH))


def save_manifest(
    run_dir: RunDir, before: Manifest, retry: Retry, *, begun_at_s: float, durability: str, identity: str = ""
) -> Manifest:
    """Write the manifest of a retry of the run ``before``, and return it; raises StorageError."""
    path = run_dir.path / INPUT
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
        keys_since_s=before.oldest_key_s if retry.replays else None,
        identity=identity,
    )
    return manifests.save(run_dir, manifest, Selection())
