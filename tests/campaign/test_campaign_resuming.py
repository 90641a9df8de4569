"""Runs that are stopped or killed and resumed: nobody is lost, nobody is reached twice, and the books add up.

A process is killed by copying what it has on disk at that instant; whatever it does afterwards reaches neither the copy
nor the server.
"""

import asyncio
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sendengine import NotSentError, SendEngine
from sendengine.campaign import house
from sendengine.campaign import manifest as manifests
from sendengine.campaign.kept import JobsKeeping, open_keeping
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.report import Report, parse
from sendengine.campaign.retrying import plan_retry
from sendengine.campaign.retryrun import fill_journal, kept_requests, save_manifest, write_jobs
from sendengine.campaign.run import Run, RunOptions, RunResult
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.saved import manifest_of, saved_work, settings_for
from sendengine.campaign.work import CampaignInput, load_input
from sendengine.core.wire import Reply, WireRequest
from sendengine.journal.store import Store
from sendengine.ports import Permit
from sendengine.settings import BatchingSettings, CeilingSettings, RetrySettings, Settings
from tests.campaign.campaign_files import NOON, csv_file
from tests.support.engines import make_settings
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept, json_reply, refuse
from tests.support.stores import Disk
from tests.support.virtual_loop import run_virtually

GREETING = """
[campaign]
name = "Greeting"
{options}
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
{tables}
"""
HELLO = 'channel = "push"\nmessage.contents.en = "Hello"'


@pytest.fixture(autouse=True)
def _look_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of virtual time pass here, and each look costs real time."""
    monkeypatch.setattr(house, "_LOOK_S", 2.0)


@dataclass
class Server:
    """What all processes of a run talk to: it remembers keys, and answers a repeat with the first success."""

    answer: Callable[[Arrival], Answer] = accept
    replies: dict[str, Reply] = field(default_factory=dict)
    reached: Counter[str] = field(default_factory=Counter)
    updates: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def take(self, arrival: Arrival) -> Answer:
        if arrival.method == "PATCH":
            self.updates.append((arrival.user, arrival.body))
            return self.answer(arrival)
        body = json.dumps(arrival.body).encode()
        assert self.bodies.setdefault(arrival.key, body) == body, "another body under an old key"
        if arrival.key in self.replies:
            return self.replies[arrival.key]
        answer = self.answer(arrival)
        if isinstance(answer, Reply) and answer.status == 200:
            self.replies[arrival.key] = answer
            self.reached.update(arrival.ids)
        return answer


class Mortal(FakeTransport):
    """A transport that dies with its process: nothing reaches the server any more."""

    is_dead = False

    async def exchange(self, request: WireRequest, permit: Permit) -> Reply:
        if self.is_dead:
            await permit()
            raise NotSentError("the process is dead")
        return await super().exchange(request, permit)


@dataclass
class Scene:
    """A run, over any number of processes."""

    folder: Path
    server: Server
    cap: int = 2
    retry: RetrySettings = field(default_factory=lambda: RetrySettings(lost_reply_wait_s=1))
    app: dict[str, Any] = field(default_factory=lambda: {"ceilings": {"create_notification": 50, "update_user": 50}})
    run_dir: RunDir = field(init=False)
    lives: int = 0
    arrivals: int = 0

    def settings(self) -> Settings:
        app = {**self.app, "ceilings": CeilingSettings(**self.app["ceilings"])}
        batching = BatchingSettings(max_recipients_per_request=self.cap)
        return make_settings(self.folder / "state", app=app, retry=self.retry, batching=batching)

    def begin(self, path: Path) -> None:
        """Do what `send` does before the first request."""
        settings = self.settings()
        loaded = load_input(path, settings)
        work = loaded.work(loaded.plan(settings, now=NOON)) if isinstance(loaded, CampaignInput) else loaded.work()
        self.run_dir = RunDir.make(self.folder / "runs", name=loaded.name, now=NOON)
        made = manifest_of(loaded, work, settings, edition=1)
        manifests.save(self.run_dir, replace(made, run=self.run_dir.run, begun_at_s=NOON.timestamp()), work.selection)

    def live(
        self,
        *,
        killed_at: int | None = None,
        stopped_at: int | None = None,
        disk: Disk | None = None,
        when_seen: Callable[[int, Run], None] = lambda *_: None,
    ) -> RunResult | None:
        """Run a process to its end, or until the server has seen so many requests in all; None where it was killed."""
        return run_virtually(self._live(killed_at, stopped_at, disk or Disk(), when_seen))

    async def _live(
        self, killed_at: int | None, stopped_at: int | None, disk: Disk, when_seen: Callable[[int, Run], None]
    ) -> RunResult | None:
        self.lives += 1
        manifest = manifests.load(self.run_dir)
        settings = settings_for(manifest, self.settings())
        kept = await open_keeping(self.run_dir, manifest, durability="durable", connect=disk.connect)
        the_run = Run(
            saved_work(self.run_dir, manifest),
            run_dir=self.run_dir,
            options=RunOptions(max_error_rate=None, durability="durable"),
            keeping=kept,
        )
        copy = self.folder / f"copy-{self.lives}"

        def behave(arrival: Arrival) -> Answer:
            self.arrivals += 1
            answer = self.server.take(arrival)
            when_seen(self.arrivals, the_run)
            if self.arrivals == killed_at:
                self._copy(copy)
                transport.is_dead = True
                the_run.abort()
            if self.arrivals == stopped_at:
                the_run.stop()
            return answer

        transport = Mortal(behave)
        try:
            async with SendEngine(
                settings, observer=the_run, open_transport=lambda *_: transport, journal=kept.journal
            ) as engine:
                result = await the_run.send(engine)
        finally:
            await kept.journal.aclose()
        if not transport.is_dead:
            return result
        self.run_dir = RunDir(copy)
        return None

    def _copy(self, to: Path) -> None:
        to.mkdir()
        found = sorted(self.run_dir.path.iterdir(), key=lambda path: not path.name.startswith("journal"))
        for path in found:  # the journal first: lines are on disk before the journal says so
            shutil.copy2(path, to / path.name)

    @property
    def report(self) -> Report:
        return parse(self.run_dir.read("report.json"))

    @property
    def counts(self) -> dict[str, int]:
        jobs = self.report.jobs
        return {name: getattr(jobs, name) for name in jobs.__struct_fields__ if getattr(jobs, name)}

    def lines(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.run_dir.read(file).splitlines()]


def greeting(folder: Path, ids: list[str], *, options: str = HELLO, tables: str = "") -> Path:
    csv_file(folder, "external_id,level", *(f"{item},{n}" for n, item in enumerate(ids)))
    path = folder / "campaign.toml"
    path.write_text(GREETING.format(options=options, tables=tables))
    return path


def jobs(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "jobs.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def note(*ids: str, **more: Any) -> dict[str, Any]:
    message = {"contents": {"en": "Hi"}}
    return {"kind": "create_notification", "message": message, "channel": "push", "to": {"external_id": ids}, **more}


def change(user: str, **more: Any) -> dict[str, Any]:
    return {"kind": "update_user", "user": {"external_id": user}, **more}


@pytest.mark.parametrize("kills", [[1], [2, 3, 4], [20, 40, 90]])
def test_a_campaign_that_is_killed_at_any_request_reaches_everybody_once(tmp_path: Path, kills: list[int]) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(200)]))
    for at in kills:
        scene.live(killed_at=at)
    scene.cap = 7  # of today's settings, and no matter
    result = scene.live()
    assert result is not None
    assert (result.exit_code, result.why) == (0, "")
    assert scene.server.reached == Counter({f"u{n}": 1 for n in range(200)})
    assert scene.counts == {"accepted": 200}
    assert scene.report.recipients.targeted == 200
    assert sorted(line["rows"][0] for line in scene.lines("requests.jsonl")) == [[n, n + 1] for n in range(1, 201, 2)]
    assert {line["recipients"] for line in scene.lines("requests.jsonl")} == {2}


def test_a_campaign_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(200)]))
    result = scene.live(stopped_at=30)
    assert result is not None
    assert result.exit_code == 75
    assert scene.lines("failures.jsonl") == []
    assert result.report.jobs.accepted == 60
    seen = scene.arrivals
    again = scene.live()
    assert again is not None
    assert (again.exit_code, scene.counts) == (0, {"accepted": 200})
    assert scene.arrivals == seen + 70  # nothing was sent again
    assert again.report.lanes["shop/create_notification"]["requests"] == 100
    assert again.report.lanes["shop/create_notification"]["replies"] == {"200": 100}


@pytest.mark.parametrize("at", [3, 8, 15, 22])
def test_a_campaign_that_is_killed_while_packs_are_split_loses_and_doubles_nobody(tmp_path: Path, at: int) -> None:
    bad = {"u3", "u17", "u18", "u40"}

    def poisoned(arrival: Arrival) -> Answer:
        return refuse() if bad.intersection(arrival.ids) else accept(arrival)

    scene = Scene(tmp_path, Server(poisoned), cap=8)
    scene.begin(greeting(tmp_path, [f"v{n}" for n in range(8)] + [f"u{n}" for n in range(64)]))
    for kill in (at, at + 5):
        scene.live(killed_at=kill)
    result = scene.live()
    assert result is not None
    assert result.exit_code == 3
    assert scene.counts == {"accepted": 68, "rejected": 4}
    assert set(scene.server.reached.values()) == {1}
    assert len(scene.server.reached) == 68
    failed = [item for line in scene.lines("failures.jsonl") for item in line["job"]["to"]["external_id"]]
    assert sorted(failed) == sorted(bad)


@pytest.mark.parametrize("at", [1, 9, 25])
def test_user_changes_are_resumed_in_order(tmp_path: Path, at: int) -> None:
    scene = Scene(tmp_path, Server())
    path = greeting(tmp_path, [f"u{n % 20}" for n in range(40)], tables='[campaign.tags]\nlevel = "level"')
    path.write_text(path.read_text().replace(HELLO, 'kind = "update_user"'))
    scene.begin(path)
    scene.live(killed_at=at)
    result = scene.live()
    assert result is not None
    assert (result.exit_code, scene.counts) == (0, {"accepted": 40})
    ends = {user: body["properties"]["tags"]["level"] for user, body in scene.server.updates}
    assert ends == {f"u{n}": str(n + 20) for n in range(20)}


@pytest.mark.parametrize("kills", [[1], [5, 6, 7], [20, 41]])
def test_a_jobs_file_that_is_killed_is_sent_once_and_its_deltas_at_most_once(tmp_path: Path, kills: list[int]) -> None:
    lines = [note(f"u{n}", urgency="high") for n in range(30)]
    lines += [change(f"d{n}", deltas={"session_count": 1}) for n in range(15)]
    lines.insert(7, {"kind": "none"})
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, *lines))
    for at in kills:
        scene.live(killed_at=at)
    result = scene.live()
    assert result is not None
    assert scene.server.reached == Counter({f"u{n}": 1 for n in range(30)})
    assert max(Counter(user for user, _ in scene.server.updates).values()) == 1
    counts = scene.counts
    assert counts["accepted"] + counts.get("ambiguous", 0) == 45
    assert counts["invalid"] == 1
    assert len(scene.lines("failures.jsonl")) == counts.get("ambiguous", 0)
    assert scene.report.recipients.targeted == 30


def test_a_jobs_file_that_is_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, *(note(f"u{n}", message={"contents": {"en": f"{n}"}}) for n in range(100))))
    result = scene.live(stopped_at=20)
    assert result is not None
    assert result.exit_code == 75
    assert scene.live() is not None
    assert scene.counts == {"accepted": 100}
    assert set(scene.server.reached.values()) == {1}
    assert scene.arrivals == 100


def test_what_joined_another_job_is_counted_with_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    lines = [note("a", idempotency_key="k"), *(note(f"u{n}") for n in range(9)), note("a", idempotency_key="k")]
    scene.begin(jobs(tmp_path, *lines))
    result = scene.live()
    assert result is not None
    assert (scene.counts, scene.server.reached["a"]) == ({"accepted": 11}, 1)


# A retry


def outage(bad: set[str]) -> Callable[[Arrival], Answer]:
    """Answer 503 to whoever names one of these, but keep what arrived: it was received all the same."""

    def answer(arrival: Arrival) -> Answer:
        return json_reply(503, {"errors": ["later"]}) if bad.intersection(arrival.ids) else accept(arrival)

    return answer


def retried(scene: Scene, **options: Any) -> tuple[Scene, Manifest]:
    """Do what `retry` does, and return the new run."""
    old, before = scene.run_dir, manifests.load(scene.run_dir)
    new = Scene(scene.folder, scene.server, cap=scene.cap)
    new.run_dir = RunDir.make(scene.folder / "runs", name="retry", now=NOON)

    async def prepare() -> Manifest:
        retry = plan_retry(old, before, await kept_requests(old, before), **options)
        write_jobs(new.run_dir, retry)
        await fill_journal(new.run_dir, retry, app_of=lambda _: "shop", durability="durable")
        return save_manifest(new.run_dir, before, retry, begun_at_s=NOON.timestamp(), durability="durable")

    manifest = run_virtually(prepare())
    return new, manifest


@pytest.mark.parametrize(("of", "was_received"), [("campaign", True), ("jobs", False)])
def test_after_an_outage_a_retry_reaches_everybody_once(tmp_path: Path, of: str, *, was_received: bool) -> None:
    bad = {"u5", "u30"}
    server = Server(outage(bad))
    scene = Scene(tmp_path, server, cap=4)
    ids = [f"u{n}" for n in range(400)]
    scene.begin(greeting(tmp_path, ids) if of == "campaign" else jobs(tmp_path, *(note(item) for item in ids)))
    result = scene.live()
    assert result is not None
    assert (result.exit_code, scene.report.jobs.gave_up > 0) == (3, True)
    assert all(line["maybe_sent"] for line in scene.lines("failures.jsonl"))
    failed = {line["key"] for line in scene.lines("failures.jsonl")}
    if was_received:  # the server had carried them out, and only said otherwise
        for key in failed:
            server.replies[key] = json_reply(200, {"id": "m"})
            server.reached.update(json.loads(server.bodies[key])["include_aliases"]["external_id"])
    server.answer = accept
    new, manifest = retried(scene)
    if of == "campaign":
        new.live(killed_at=1)  # a retry that is killed is resumed as any other run
    again = new.live()
    assert again is not None
    assert (again.exit_code, manifest.retry_of) == (0, scene.run_dir.run)
    assert server.reached == Counter(dict.fromkeys(ids, 1))
    assert {line["key"] for line in new.lines("requests.jsonl")} == failed


def test_deltas_that_may_have_been_counted_are_left_unless_they_are_asked_for(tmp_path: Path) -> None:
    server = Server(lambda arrival: json_reply(500, {}) if arrival.body.get("deltas") else accept(arrival))
    scene = Scene(tmp_path, server)
    scene.begin(jobs(tmp_path, change("d", deltas={"session_count": 1}), note("a")))
    result = scene.live()
    assert result is not None
    assert scene.counts == {"accepted": 1, "ambiguous": 1}
    before = manifests.load(scene.run_dir)
    for options, count in (({}, 0), ({"repeat_deltas": True}, 1), ({"repeat_deltas": True, "reasons": ["gave_up"]}, 0)):
        retry = plan_retry(scene.run_dir, before, {}, **options)
        assert retry.count == count
        assert sum(retry.left.values()) == 1 - count


# The disk fails


@pytest.mark.parametrize("of", ["campaign", "jobs"])
def test_a_disk_that_breaks_stops_the_run_and_nothing_is_lost(tmp_path: Path, of: str) -> None:
    ids = [f"u{n}" for n in range(200)]
    scene, disk = Scene(tmp_path, Server()), Disk()
    scene.begin(greeting(tmp_path, ids) if of == "campaign" else jobs(tmp_path, *(note(each) for each in ids)))

    def break_down(seen: int, _: Run) -> None:
        disk.is_broken = seen >= 20

    result = scene.live(disk=disk, when_seen=break_down)
    assert result is not None
    assert (result.exit_code, "disk I/O error" in result.why) == (5, True)
    assert scene.live() is not None
    assert (scene.counts, scene.server.reached) == ({"accepted": 200}, Counter(dict.fromkeys(ids, 1)))


@pytest.mark.parametrize("of", ["campaign", "jobs"])
def test_a_full_disk_is_waited_for_and_said(tmp_path: Path, of: str) -> None:
    ids = [f"u{n}" for n in range(400)]
    scene, disk = Scene(tmp_path, Server()), Disk()
    scene.begin(greeting(tmp_path, ids) if of == "campaign" else jobs(tmp_path, *(note(each) for each in ids)))
    problems: list[str | None] = []

    def fill(seen: int, the_run: Run) -> None:
        if seen == 20:
            disk.is_full = True
            loop = asyncio.get_running_loop()
            loop.call_later(30, lambda: problems.append(the_run.progress.problem))
            loop.call_later(31, lambda: setattr(disk, "is_full", False))

    result = scene.live(disk=disk, when_seen=fill)
    assert result is not None
    assert (result.exit_code, scene.counts) == (0, {"accepted": 400})
    assert scene.server.reached == Counter(dict.fromkeys(ids, 1))
    if of == "campaign":  # the jobs were all on disk before
        assert "is full; free some room there" in str(problems[0])


async def spoil(scene: Scene, name: str) -> None:
    """Let a value of the journal say nothing any more."""
    store = await Store.open(scene.run_dir.path / "journal.db")
    store.contents()
    store.set_value(name, b"{")
    await store.aclose()


@pytest.mark.parametrize("name", ["books", "settled", "frontier", "lanes"])
def test_a_campaign_whose_journal_is_damaged_is_repeated_under_its_old_keys(tmp_path: Path, name: str) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(100)]))
    scene.live(killed_at=30)
    run_virtually(spoil(scene, name))
    result = scene.live()
    assert result is not None
    assert (result.exit_code, scene.counts) == (0, {"accepted": 100})
    assert scene.server.reached == Counter({f"u{n}": 1 for n in range(100)})
    assert len(scene.lines("requests.jsonl")) == 50


def test_a_jobs_file_whose_journal_is_damaged_sends_what_is_left_in_it_and_reads_no_more(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, *(change(f"d{n}", deltas={"session_count": 1}) for n in range(100))))
    scene.live(killed_at=30)
    run_virtually(spoil(scene, "books"))
    for _ in range(2):  # it is known from then on
        result = scene.live()
        assert result is not None
        assert result.exit_code == 5
        assert "does not tell which rows of the input have been sent" in result.why
    assert max(Counter(user for user, _ in scene.server.updates).values()) == 1


async def test_the_journal_of_jobs_is_an_outbox(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, note("a")))
    kept = await open_keeping(scene.run_dir, manifests.load(scene.run_dir), durability="durable")
    assert isinstance(kept, JobsKeeping)
    assert kept.first_row == 0
    assert (scene.run_dir.path / "journal.db").stat().st_mode & 0o777 == 0o600
    await kept.journal.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
