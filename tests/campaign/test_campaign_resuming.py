"""Runs that are stopped or killed and resumed: nobody is lost, nobody is reached twice, and the books add up.

A process is killed by copying what it has on disk at that instant; whatever it does afterwards reaches neither the copy
nor the server.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from sendengine import CreateNotification, InputError, StorageError
from sendengine.campaign import flow, house
from sendengine.campaign import manifest as manifests
from sendengine.campaign.kept import JobsKeeping, open_keeping
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.recorder import Recorder
from sendengine.campaign.retrying import RETRIED, Kept, Retry, plan_retry
from sendengine.campaign.retryrun import fill_journal, kept_of, save_manifest, write_jobs
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.run import Run
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.saved import check_age, saved_work
from sendengine.journal.store import Store
from sendengine.settings import RetrySettings
from tests.campaign.campaign_files import NOON
from tests.campaign.run_scene import HELLO, Scene, Server, change, greeting, jobs, note
from tests.support.fake_transport import Answer, Arrival, accept, json_reply, refuse
from tests.support.stores import Disk
from tests.support.virtual_loop import START_S, run_virtually

NOW = datetime.now(UTC)


@pytest.fixture(autouse=True)
def _look_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of virtual time pass here, and each look costs real time."""
    monkeypatch.setattr(house, "_LOOK_S", 2.0)


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


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_campaign_that_goes_on_behind_a_fence_is_stopped_and_nobody_is_reached_twice(
    tmp_path: Path, *, is_killed: bool
) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(40)]))
    scene.live(killed_at=5 if is_killed else None, stopped_at=None if is_killed else 5)
    reached = Counter(scene.server.reached)
    scene.app["only_to"] = ("external_id:qa-1",)
    over = scene.live()
    assert over is not None
    assert over.exit_code == (75 if is_killed else 4)
    assert over.report.jobs.rejected == (0 if is_killed else 2)  # of a pack that certainly was not sent
    assert scene.server.reached == reached
    del scene.app["only_to"]
    over = scene.live()
    assert over is not None
    assert set(scene.server.reached.values()) == {1}
    assert len(scene.server.reached) == 40 - over.report.jobs.rejected


@pytest.mark.parametrize("ends", ["stopped", "killed", "stopped after a kill"])
def test_what_a_stopped_campaign_had_not_sent_goes_at_once_when_it_goes_on(tmp_path: Path, ends: str) -> None:
    """It may have been sent as far as a killed process can know; one that stopped knows better."""
    scene = Scene(tmp_path, Server(), retry=RetrySettings(lost_reply_wait_s=100))
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(400)]))
    if ends != "stopped":
        assert scene.live(killed_at=60) is None
    if ends != "killed":
        assert scene.live(stopped_at=scene.arrivals + 20) is not None
    seen: list[float] = []

    def answer(arrival: Arrival) -> Answer:
        seen.append(arrival.at_s - START_S)
        return accept(arrival)

    scene.server.answer = answer
    assert scene.live() is not None
    assert scene.server.reached == Counter({f"u{n}": 1 for n in range(400)})
    waited = sum(at_s > 99 for at_s in seen)
    assert (waited > 0) == (ends != "stopped")
    assert len(seen) - waited >= 100


@pytest.mark.parametrize("ends", ["stopped_at", "killed_at"])
def test_a_campaign_that_goes_on_parts_what_is_refused_as_one_that_was_never_interrupted(
    tmp_path: Path, ends: str
) -> None:
    server = Server(
        lambda arrival: refuse() if any(item.startswith("poison") for item in arrival.ids) else accept(arrival)
    )
    ids = [f"poison{n}" if n > 400 and n % 20 == 7 else f"u{n}" for n in range(600)]
    path = greeting(tmp_path, ids)
    scene = Scene(tmp_path, server, cap=20)
    scene.begin(path)
    scene.live(**{ends: 15})  # type: ignore[arg-type]
    result = scene.live()
    assert result is not None
    assert result.exit_code == 3
    once = Counter(item for item in ids if item.startswith("u"))
    assert server.reached == once
    (tmp_path / "elsewhere").mkdir()
    other = Scene(tmp_path / "elsewhere", server, cap=20)  # by mistake, where nothing is known of it
    other.begin(path)
    assert other.live() is not None
    assert server.reached == once


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


def test_a_campaign_that_goes_on_after_its_deadline_comes_to_its_end(tmp_path: Path) -> None:
    """What may have been sent is given up then, which says nothing about the message."""
    scene = Scene(tmp_path, Server())
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(100)], options=f"expires_in_s = 3600\n{HELLO}"), at=NOW)
    assert scene.live(killed_at=10) is None
    manifest = manifests.load(scene.run_dir)
    assert manifest.plan is not None
    plan = replace(manifest.plan, deadline=NOW - timedelta(seconds=5))
    manifests.save(scene.run_dir, replace(manifest, plan=plan), Selection())
    result = scene.live()
    assert result is not None
    assert (result.exit_code, result.why) == (3, "")
    counts = scene.counts
    assert counts["gave_up"] > 0
    assert sum(counts.values()) == 100
    assert all(line["maybe_sent"] for line in scene.lines("failures.jsonl") if line["outcome"] == "gave_up")


def test_what_joined_another_job_is_counted_with_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    lines = [note("a", idempotency_key="k"), *(note(f"u{n}") for n in range(9)), note("a", idempotency_key="k")]
    scene.begin(jobs(tmp_path, *lines))
    result = scene.live()
    assert result is not None
    assert (scene.counts, scene.server.reached["a"]) == ({"accepted": 11}, 1)


@pytest.mark.parametrize("is_later", [False, True])
def test_what_joined_a_job_that_fails_has_a_line_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_later: bool
) -> None:
    monkeypatch.setattr(flow, "MOST_ITEMS", 5)  # what comes after many others comes when it has failed
    scene = Scene(tmp_path, Server(lambda arrival: refuse() if "poison" in arrival.ids else accept(arrival)))
    keyed = note("poison", idempotency_key="k")
    others = [note(f"u{n}", urgency="high") for n in range(9)]
    scene.begin(jobs(tmp_path, note("first"), keyed, *([*others, keyed] if is_later else [keyed, *others])))
    assert scene.live() is not None
    assert scene.counts == {"accepted": 10, "rejected": 2}
    first, second = scene.lines("failures.jsonl")
    assert first == {**second, "key": first["key"]}
    assert second["key"] == (None if is_later else first["key"])
    assert first["job"]["idempotency_key"] == "k"
    assert len(scene.run_dir.read("failures.sums").splitlines()) == 2


def test_what_joined_another_job_is_counted_although_a_process_died_before_it_joined_again(tmp_path: Path) -> None:
    later = json_reply(503, {"errors": ["later"]})
    scene = Scene(tmp_path, Server(lambda arrival: later if "a" in arrival.ids else accept(arrival)))
    keyed = note("a", idempotency_key="k")
    scene.begin(jobs(tmp_path, note("first"), keyed, *(note(f"u{n}") for n in range(8)), keyed))
    assert scene.live(killed_at=9) is None

    async def die_early() -> None:
        manifest = manifests.load(scene.run_dir)
        kept = await open_keeping(scene.run_dir, manifest, durability="durable")
        assert kept.earlier is not None
        assert kept.earlier.joined == (10,)
        work = saved_work(scene.run_dir, manifest)
        recorder = Recorder(work, scene.run_dir, earlier=kept.earlier, first_row=kept.first_row, is_kept=True)
        kept.open(recorder, dict)
        await kept.journal.recover(when_failed=print)
        await kept.flush()
        recorder.discard()
        await kept.journal.aclose()

    run_virtually(die_early())
    scene.server.answer = accept
    assert scene.live() is not None
    assert (scene.counts, scene.server.reached["a"]) == ({"accepted": 11}, 1)


# A retry


def outage(bad: set[str]) -> Callable[[Arrival], Answer]:
    """Answer 503 to whoever names one of these, but keep what arrived: it was received all the same."""

    def answer(arrival: Arrival) -> Answer:
        return json_reply(503, {"errors": ["later"]}) if bad.intersection(arrival.ids) else accept(arrival)

    return answer


def retried(scene: Scene, *, at: datetime = NOON, **options: Any) -> tuple[Scene, Manifest]:
    """Do what `retry` does, and return the new run."""
    old, before = scene.run_dir, manifests.load(scene.run_dir)
    new = Scene(scene.folder, scene.server, cap=scene.cap)
    new.run_dir = RunDir.make(scene.folder / "runs", name="retry", now=NOON)

    async def prepare() -> Manifest:
        retry = plan_retry(old, before, await kept_of(old, before), **options)
        write_jobs(new.run_dir, retry)
        await fill_journal(new.run_dir, retry, app_of=lambda _: "shop", durability="durable")
        return save_manifest(new.run_dir, before, retry, begun_at_s=at.timestamp(), durability="durable")

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


def test_what_joined_a_job_that_was_given_up_rides_in_the_same_request_once(tmp_path: Path) -> None:
    bad = {"u5", "u30"}
    server = Server(outage(bad))
    scene = Scene(tmp_path, server)
    keyed = note("u5", "v5", idempotency_key="k")
    scene.begin(jobs(tmp_path, note("u0"), keyed, keyed, *(note(f"u{n}") for n in range(400) if n != 5)))
    assert scene.live() is not None
    gave_up = [line for line in scene.lines("failures.jsonl") if line["job"].get("idempotency_key") == "k"]
    assert [line["outcome"] for line in gave_up] == ["gave_up", "gave_up"]
    assert len({line["key"] for line in gave_up}) == 1
    server.answer = accept
    new, _ = retried(scene)
    assert new.live() is not None
    assert (server.reached["u5"], server.reached["v5"]) == (1, 1)
    of_it = [line["recipients"] for line in new.lines("requests.jsonl") if line["key"] == gave_up[0]["key"]]
    assert of_it == [2]


def test_deltas_that_may_have_been_counted_are_left_unless_they_are_asked_for(tmp_path: Path) -> None:
    server = Server(lambda arrival: json_reply(500, {}) if arrival.body.get("deltas") else accept(arrival))
    scene = Scene(tmp_path, server)
    scene.begin(jobs(tmp_path, change("d", deltas={"session_count": 1}), note("a")))
    result = scene.live()
    assert result is not None
    assert scene.counts == {"accepted": 1, "ambiguous": 1}
    before = manifests.load(scene.run_dir)
    for options, count in (({}, 0), ({"repeat_deltas": True}, 1), ({"repeat_deltas": True, "reasons": ["gave_up"]}, 0)):
        retry = plan_retry(scene.run_dir, before, Kept(), **options)
        assert retry.count == count
        assert sum(retry.left.values()) == 1 - count


def test_a_failure_that_a_killed_process_wrote_last_is_left_to_the_run_itself(tmp_path: Path) -> None:
    """Its journal does not know that it was final: resumed, the run sends it again."""
    scene = Scene(tmp_path, Server(lambda arrival: refuse() if "u1" in arrival.ids else accept(arrival)))
    scene.begin(jobs(tmp_path, *(note(f"u{n}", urgency="high") for n in range(60))))
    scene.live(killed_at=40)
    line = {**scene.lines("failures.jsonl")[0], "job": note("u50")}
    with (scene.run_dir.path / "failures.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    before = manifests.load(scene.run_dir)

    async def plan() -> Retry:
        return plan_retry(scene.run_dir, before, await kept_of(scene.run_dir, before))

    assert [job.to.ids for job in run_virtually(plan()).new if isinstance(job, CreateNotification)] == [("u1",)]
    assert scene.live() is not None
    assert (scene.counts, len(scene.lines("failures.jsonl"))) == ({"accepted": 59, "rejected": 1}, 1)


def test_what_another_retry_repeats_is_left_out(tmp_path: Path) -> None:
    bad = {"u1", "u2", "u3"}
    scene = Scene(tmp_path, Server(lambda arrival: refuse() if bad.intersection(arrival.ids) else accept(arrival)))
    scene.begin(jobs(tmp_path, *(note(f"u{n}", urgency="high") for n in range(9))))
    assert scene.live() is not None
    retry = plan_retry(scene.run_dir, manifests.load(scene.run_dir), Kept(), retried={2})
    assert (len(retry.new), retry.lines, retry.left) == (2, (1, 3), {RETRIED: 1})


def test_a_retry_of_a_retry_is_as_old_as_the_oldest_key_in_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server(outage({"u5"})))
    scene.begin(jobs(tmp_path, *(note(f"u{n}") for n in range(20))))
    assert scene.live() is not None
    later, began_s = NOON + timedelta(days=20), NOON.timestamp()
    _, manifest = retried(scene, at=later)
    assert (manifest.begun_at_s, manifest.keys_since_s) == (later.timestamp(), began_s)
    check_age(manifest, now_s=began_s + 28 * 86_400, duplicates_are_accepted=False)
    with pytest.raises(InputError, match="repeats requests that were begun 30 days ago"):
        check_age(manifest, now_s=began_s + 30 * 86_400, duplicates_are_accepted=False)
    manifests.save(scene.run_dir, replace(manifests.load(scene.run_dir), keys_since_s=began_s - 5), Selection())
    assert retried(scene, at=later)[1].keys_since_s == began_s - 5  # what it repeats was a retry itself


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


@pytest.mark.parametrize("loss", ["empty", "set back"])
def test_a_campaign_that_lost_its_journal_parts_again_in_the_same_way_what_is_refused(
    tmp_path: Path, loss: str
) -> None:
    def picky(arrival: Arrival) -> Answer:
        return refuse() if {"poison", "bad"}.intersection(arrival.ids) else accept(arrival)

    people = [f"u{n}" for n in range(200)]
    scene = Scene(tmp_path, Server(picky), cap=8)
    scene.begin(greeting(tmp_path, ["poison", *people[:100], "bad", *people[100:]]))
    before: dict[str, bytes] = {}

    def look(arrivals: int, _: Run) -> None:
        if arrivals == 1:
            before.update({path.name: path.read_bytes() for path in scene.run_dir.path.glob("journal.db*")})

    scene.live(killed_at=35, when_seen=look)
    assert len(scene.server.reached) > 100
    for path in scene.run_dir.path.glob("journal.db*"):
        path.write_bytes(before.get(path.name, b"") if loss == "set back" else b"")
    result = scene.live()
    assert result is not None
    assert result.exit_code == 3
    assert scene.server.reached == Counter(dict.fromkeys(people, 1))
    assert scene.counts == {"accepted": 200, "rejected": 2}
    assert len(scene.lines("failures.jsonl")) == 2


def test_a_jobs_file_whose_journal_was_set_back_is_not_sent_again(tmp_path: Path) -> None:
    """As by a copy from before, or by a write-ahead log that is gone; it says nothing about that itself."""
    scene = Scene(tmp_path, Server())
    scene.begin(
        jobs(tmp_path, *(note(f"u{n}") for n in range(60)), *(change(f"u{n}", tags={"level": 1}) for n in range(10)))
    )
    scene.live(killed_at=4)
    before = {path.name: path.read_bytes() for path in scene.run_dir.path.glob("journal.db*")}
    scene.live(killed_at=30)
    for name, content in before.items():
        (scene.run_dir.path / name).write_bytes(content)
    reached, lines = scene.server.reached.copy(), scene.run_dir.read("requests.jsonl")
    for _ in range(2):
        with pytest.raises(StorageError, match=r"journal\.db has lost what was written into it last"):
            scene.live()
    assert (scene.server.reached, scene.run_dir.read("requests.jsonl")) == (reached, lines)


def test_lines_that_a_killed_process_wrote_last_are_no_sign_of_a_loss(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(
        jobs(tmp_path, *(note(f"u{n}") for n in range(60)), *(change(f"u{n}", tags={"level": 1}) for n in range(10)))
    )
    scene.live(killed_at=30)
    with (scene.run_dir.path / "requests.jsonl").open("ab") as file:
        file.write(b'{"outcome": "accep')
    result = scene.live()
    assert result is not None
    assert result.exit_code == 0
    assert scene.server.reached == Counter({f"u{n}": 1 for n in range(60)})


def test_it_is_said_what_may_have_been_sent_and_what_is_too_late(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server(lambda arrival: refuse() if "u3" in arrival.ids else accept(arrival)), cap=8)
    scene.begin(greeting(tmp_path, [f"u{n}" for n in range(400)], options=f"{HELLO}\nexpires_in_s = 3600"))

    async def left_behind() -> str | None:
        kept = await open_keeping(scene.run_dir, manifests.load(scene.run_dir), durability="durable")
        await kept.journal.aclose()
        return kept.left_behind

    assert run_virtually(left_behind()) == "its deadline has passed: what was not sent expires"  # it began long ago
    manifest = manifests.load(scene.run_dir)
    assert manifest.plan is not None
    later = replace(manifest, plan=replace(manifest.plan, deadline=datetime.now(UTC) + timedelta(hours=1)))
    manifests.save(scene.run_dir, later, Selection())
    assert run_virtually(left_behind()) is None
    assert scene.live(killed_at=12) is None
    told = run_virtually(left_behind())
    assert told is not None
    assert re.fullmatch(r"\d+ rows, and \d+ pieces of refused packs, may have been sent and go again, .*", told)


async def test_the_journal_of_jobs_is_an_outbox(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server())
    scene.begin(jobs(tmp_path, note("a")))
    kept = await open_keeping(scene.run_dir, manifests.load(scene.run_dir), durability="durable")
    assert isinstance(kept, JobsKeeping)
    assert kept.first_row == 0
    assert (scene.run_dir.path / "journal.db").stat().st_mode & 0o777 == 0o600
    await kept.journal.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
