"""A run over several processes, and the server that they all talk to, on a virtual clock.

A process is killed by copying what it has on disk at that instant; whatever it does afterwards reaches neither the copy
nor the server.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from sendengine import NotSentError, SendEngine
from sendengine.campaign import manifest as manifests
from sendengine.campaign.kept import open_keeping
from sendengine.campaign.report import Report, parse
from sendengine.campaign.run import Run, RunOptions, RunResult
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.saved import manifest_of, saved_work, settings_for
from sendengine.campaign.work import CampaignInput, load_input
from sendengine.core.wire import Reply, WireRequest
from sendengine.ports import Permit
from sendengine.settings import BatchingSettings, CeilingSettings, RetrySettings, Settings
from tests.campaign.campaign_files import NOON, csv_file
from tests.support.engines import make_settings
from tests.support.fake_transport import Answer, Arrival, FakeTransport, accept
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

    def begin(self, path: Path, *, at: datetime = NOON) -> None:
        """Do what `send` does before the first request."""
        settings = self.settings()
        loaded = load_input(path, settings)
        work = loaded.work(loaded.plan(settings, now=at)) if isinstance(loaded, CampaignInput) else loaded.work()
        self.run_dir = RunDir.make(self.folder / "runs", name=loaded.name, now=NOON)
        made = manifest_of(loaded, work, settings, edition=1)
        manifests.save(self.run_dir, replace(made, run=self.run_dir.run, begun_at_s=NOON.timestamp()), work.selection)

    def live(
        self,
        *,
        killed_at: int | Callable[[], bool] | None = None,
        stopped_at: int | None = None,
        disk: Disk | None = None,
        when_seen: Callable[[int, Run], None] = lambda *_: None,
    ) -> RunResult | None:
        """Run a process to its end, or until the server has seen so many requests in all; None where it was killed.

        ``killed_at`` may also be asked at each request.
        """
        is_due = killed_at if callable(killed_at) else lambda: self.arrivals == killed_at
        return run_virtually(self._live(is_due, stopped_at, disk or Disk(), when_seen))

    async def _live(
        self, is_due: Callable[[], bool], stopped_at: int | None, disk: Disk, when_seen: Callable[[int, Run], None]
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
            if not transport.is_dead and is_due():
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
