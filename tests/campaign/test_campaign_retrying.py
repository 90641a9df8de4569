"""A retry after processes that were killed: who may have been reached goes under the old key, nobody is forgotten."""

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sendengine import CreateNotification
from sendengine.campaign import house
from sendengine.campaign import manifest as manifests
from sendengine.campaign.books import BOOKS
from sendengine.campaign.manifest import Manifest
from sendengine.campaign.retrying import Retry, failures_of, plan_retry
from sendengine.campaign.retryrun import fill_journal, kept_of, save_manifest, write_jobs
from sendengine.campaign.rundir import FAILURE_SUMS, RunDir
from sendengine.journal.store import Store
from sendengine.settings import RetrySettings
from tests.campaign.campaign_files import NOON
from tests.campaign.run_scene import HELLO, Scene, Server, greeting, jobs, note
from tests.support.fake_transport import Answer, Arrival, accept, json_reply, refuse
from tests.support.virtual_loop import run_virtually

IDS = ("a", "poison", "x", "b")


@pytest.fixture(autouse=True)
def _look_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Minutes of virtual time pass here, and each look costs real time."""
    monkeypatch.setattr(house, "_LOOK_S", 2.0)


class Trouble:
    """Refuses the poison, and never says that it carries out what is for x.

    What is left of the pack takes longer, so that it is still tried when that is given up.
    """

    def __init__(self) -> None:
        self.is_mended = False
        self.tried = 0

    def __call__(self, arrival: Arrival) -> Answer:
        later = json_reply(503, {"errors": ["later"]})
        if "poison" in arrival.ids:
            self.tried += 1
            return later if 1 < self.tried < 8 else refuse()
        if "x" in arrival.ids or ("a" in arrival.ids and not self.is_mended):
            return later
        return accept(arrival)


def given_up_and_killed(folder: Path, *, of: str, was_received: bool) -> Scene:
    """Let a piece be given up, and kill the process while another of the same pack is still tried."""
    trouble = Trouble()
    scene = Scene(folder, Server(trouble), cap=len(IDS))
    others = [f"u{n}" for n in range(4 * len(IDS))]
    if of == "campaign":
        scene.begin(greeting(folder, [*others, *IDS], options=f'{HELLO}\nurgency = "high"'))
    else:
        scene.begin(jobs(folder, *(note(*ids, urgency="high") for ids in (others, IDS))))
    requests = scene.run_dir.path / "requests.jsonl"
    assert scene.live(killed_at=lambda: requests.exists() and b"gave_up" in requests.read_bytes()) is None
    trouble.is_mended = True
    if was_received:  # the server had carried it out, and only said otherwise
        (key,) = [key for key, body in scene.server.bodies.items() if is_for_x_alone(body)]
        scene.server.replies[key] = json_reply(200, {"id": "m"})
        scene.server.reached.update(ids_of(scene.server.bodies[key]))
    return scene


def ids_of(body: bytes) -> list[str]:
    found: list[str] = json.loads(body)["include_aliases"]["external_id"]
    return found


def is_for_x_alone(body: bytes) -> bool:
    return "x" in ids_of(body) and "poison" not in ids_of(body)


def retried(scene: Scene) -> tuple[Scene, Retry]:
    """Do what `retry` does, and return the new run."""
    old, before = scene.run_dir, manifests.load(scene.run_dir)
    new = Scene(scene.folder, scene.server, cap=scene.cap)
    new.run_dir = RunDir.make(scene.folder / "runs", name="retry", now=NOON)

    async def prepare() -> tuple[Retry, Manifest]:
        retry = plan_retry(old, before, await kept_of(old, before))
        write_jobs(new.run_dir, retry)
        await fill_journal(new.run_dir, retry, app_of=lambda _: "shop", durability="durable")
        return retry, save_manifest(new.run_dir, before, retry, begun_at_s=NOON.timestamp(), durability="durable")

    retry, _ = run_virtually(prepare())
    return new, retry


@pytest.mark.parametrize("was_received", [True, False])
@pytest.mark.parametrize("of", ["campaign", "jobs"])
def test_a_piece_that_an_earlier_process_gave_up_is_retried_under_its_key(
    tmp_path: Path, of: str, *, was_received: bool
) -> None:
    scene = given_up_and_killed(tmp_path, of=of, was_received=was_received)
    server = scene.server
    result = scene.live()
    assert result is not None
    assert result.exit_code == 3
    failures = {line["job"]["to"]["external_id"][0]: line for line in scene.lines("failures.jsonl")}
    assert failures["poison"]["outcome"] == "rejected"
    (lost,) = [line for item, line in failures.items() if item != "poison"]
    assert (lost["outcome"], lost["maybe_sent"]) == ("gave_up", True)
    old_key = lost["key"]
    assert is_for_x_alone(server.bodies[old_key])
    server.answer = accept
    new, retry = retried(scene)
    assert retry.left == {}
    assert [replay.seal.wire.body for replay in retry.replays] != []
    assert [(replay.seal.key, len(replay.jobs)) for replay in retry.replays] == [(old_key, 1)]
    again = new.live()
    assert again is not None
    assert again.exit_code == 0
    assert server.reached == Counter(dict.fromkeys([*IDS, *(f"u{n}" for n in range(16))], 1))
    by_key = {line["key"]: line for line in new.lines("requests.jsonl")}
    assert old_key in by_key
    assert len(by_key) == 2  # the poison has a new one


def test_a_job_that_has_less_time_than_a_repeat_waits_is_retried_all_the_same(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server(), cap=2, retry=RetrySettings(lost_reply_wait_s=100))
    scene.server.answer = lambda arrival: json_reply(503, {}) if "x" in arrival.ids else accept(arrival)
    scene.begin(jobs(tmp_path, note("a"), note("x", expires_in_s=60)))
    result = scene.live()
    assert result is not None
    assert result.exit_code == 3
    assert [(line["outcome"], line["maybe_sent"]) for line in scene.lines("failures.jsonl")] == [("gave_up", True)]
    scene.server.answer = accept
    new, _ = retried(scene)
    new.retry = scene.retry
    again = new.live()
    assert again is not None
    assert again.exit_code == 0
    assert scene.server.reached == {"a": 1, "x": 1}


def test_no_flipped_byte_of_a_failure_sends_anything_to_anybody_else_or_under_another_key(tmp_path: Path) -> None:
    def lost(arrival: Arrival) -> Answer:
        if "poison" in arrival.ids:
            return json_reply(400, {"errors": [{"title": "no", "ids": ["poison"]}]})
        return json_reply(503, {"errors": ["later"]}) if "x" in arrival.ids else accept(arrival)

    scene = Scene(tmp_path, Server(lost), cap=3)
    scene.begin(
        greeting(tmp_path, ["a", "b", "c", "poison", "d", "e", "x", "y", "z"], options=f"{HELLO}\nexpires_in_s = 60"),
        at=datetime.now(UTC),
    )
    assert scene.live() is not None
    before = manifests.load(scene.run_dir)
    kept = run_virtually(kept_of(scene.run_dir, before))

    def planned() -> set[tuple[object, ...]]:
        retry = plan_retry(scene.run_dir, before, kept)
        new = {("new", each.to.ids) for each in retry.new if isinstance(each, CreateNotification)}
        return {*new, *((each.seal.key, each.seal.wire.body) for each in retry.replays)}

    whole = planned()
    assert len(whole) == 2
    path = scene.run_dir.path / "failures.jsonl"
    content = path.read_bytes()
    for place in range(len(content)):
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert planned() <= whole, place


def test_without_their_checksums_failures_are_read_as_they_stand(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server(lambda _: refuse("no")), cap=3)
    scene.begin(greeting(tmp_path, ["a"]))
    assert scene.live() is not None
    (scene.run_dir.path / "failures.sums").unlink()
    assert [known is not None for _, known in failures_of(scene.run_dir)] == [True]


def test_failures_of_a_version_that_kept_no_checksums_are_retried_after_this_one_went_on(tmp_path: Path) -> None:
    scene = Scene(tmp_path, Server(lambda arrival: refuse() if "poison" in arrival.ids else accept(arrival)))
    scene.begin(jobs(tmp_path, *(note(item, urgency="high") for item in ("a", "poison", *(f"u{n}" for n in range(9))))))
    scene.live(stopped_at=6)
    before = manifests.load(scene.run_dir)

    async def forget() -> None:
        """Leave the run as a version did that knew nothing of checksums."""
        store = await Store.open(scene.run_dir.path / "journal.db")
        books = json.loads(store.contents().values[BOOKS])
        del books["sizes"][FAILURE_SUMS]
        store.set_value(BOOKS, json.dumps(books).encode())
        await store.aclose()
        (scene.run_dir.path / FAILURE_SUMS).unlink()

    run_virtually(forget())
    assert scene.live() is not None
    retry = plan_retry(scene.run_dir, before, run_virtually(kept_of(scene.run_dir, before)))
    assert [job.to.ids for job in retry.new if isinstance(job, CreateNotification)] == [("poison",)]
