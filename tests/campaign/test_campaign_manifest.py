"""What a run fixes before it begins: its manifest comes back as it was, or is refused, and nobody begins twice."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from sendengine.campaign import manifest, survey
from sendengine.campaign.begun import Begun, Registry, campaign_identity, jobs_identity, retry_identity
from sendengine.campaign.manifest import Ending, InputFile, Manifest
from sendengine.campaign.packs import can_begin_anew, make_packs
from sendengine.campaign.plan import Plan
from sendengine.campaign.rowsets import Selection
from sendengine.campaign.rundir import RunDir
from sendengine.campaign.survey import survey_campaign
from sendengine.campaign.tables import Mark
from sendengine.campaign.work import campaign_work
from sendengine.errors import InputError, StorageError
from tests.campaign.campaign_files import NOON, campaign_of, csv_file, people, plan_of

FILE = InputFile("/data/recipients.csv", 100, "ab" * 32)


def manifest_of(plan: Plan | None = None, **options: Any) -> Manifest:
    usual: dict[str, Any] = {
        "run": "r", "name": "greeting", "kind": "campaign" if plan else "jobs", "begun_at_s": 1.5,
        "app_ids": {"shop": "id"}, "input": FILE, "rows": 7, "total": 5,
    }  # fmt: skip
    return Manifest(plan=plan, **{**usual, **options})


def saved(folder: Path, made: Manifest, selection: Selection | None = None) -> RunDir:
    run_dir = RunDir.make(folder / "runs", name="x", now=NOON)
    manifest.save(run_dir, made, selection or Selection())
    return run_dir


def test_a_manifest_comes_back_with_its_plan_and_its_rows(tmp_path: Path) -> None:
    campaign = campaign_of(
        tmp_path / "recipients.csv",
        exclude=tmp_path / "out.csv",
        message={"contents": {"en": "ü"}, "data": {"deep": [1, 2.5, None, True, {"x": "y"}]}},
        expires_at=NOON + timedelta(days=2, microseconds=5),
        urgency="high",
    )
    made = manifest_of(
        plan_of(campaign, cap=7),
        marks=(Mark(0, 2, 12), Mark(16_400, 16_402, 200_000)),
        lanes={"shop/create_notification": 3},
        ending=Ending(0.05, fail_on_unreachable=True),
        edition=2,
        retry_of="older",
    )
    selection = Selection()
    for rows, row in ((selection.invalid, 3), (selection.repeats, 70)):
        rows.add(row)
    run_dir = saved(tmp_path, made, selection)
    found = manifest.load(run_dir)
    assert replace(found, selection={}) == made
    assert found.plan is not None
    assert found.plan.campaign == campaign
    again = manifest.load_selection(run_dir, found)
    assert [3 in again.invalid, 70 in again.repeats, len(again.invalid), len(again.duplicates)] == [True, True, 1, 0]
    assert {path.stat().st_mode & 0o777 for path in run_dir.path.iterdir()} == {0o600}


def test_a_manifest_of_jobs_has_no_plan(tmp_path: Path) -> None:
    assert manifest.load(saved(tmp_path, manifest_of())) == manifest_of()


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_manifest_is_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, *, cut: bool
) -> None:
    folder = tmp_path_factory.mktemp("run")
    run_dir = saved(folder, manifest_of(plan_of(people(folder, ["a"]))))
    path = run_dir.path / "manifest.json"
    content = bytearray(path.read_bytes())
    place %= len(content)
    if cut:
        del content[place:]
    else:
        content[place] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"manifest\.json: is damaged"):
        manifest.load(run_dir)


@pytest.mark.parametrize("change", [{"colour": "red"}, {"recipients": {"file": 7, "column": "c", "target": "t"}}])
def test_a_campaign_that_says_more_than_this_version_knows_or_no_path_is_refused(
    tmp_path: Path, change: dict[str, object]
) -> None:
    run_dir = saved(tmp_path, manifest_of(plan_of(people(tmp_path, ["a"]))))
    path = run_dir.path / "manifest.json"
    made = orjson.loads(path.read_bytes())["manifest"]
    made["plan"]["campaign"] |= change
    content = orjson.dumps(made)
    path.write_bytes(orjson.dumps({"crc": crc32(content), "manifest": orjson.Fragment(content)}))
    with pytest.raises(StorageError, match=r"manifest\.json: is damaged"):
        manifest.load(run_dir)


def test_damaged_rows_are_refused(tmp_path: Path) -> None:
    selection = Selection()
    selection.excluded.add(9)
    run_dir = saved(tmp_path, manifest_of(), selection)
    (run_dir.path / "excluded.bits").write_bytes(b"\0\1")
    with pytest.raises(StorageError, match=r"excluded\.bits: is damaged"):
        manifest.load_selection(run_dir, manifest.load(run_dir))


def test_a_directory_without_a_manifest_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no manifest\.json"):
        manifest.load(RunDir.make(tmp_path, name="x", now=NOON))


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="has schema 2"):
        manifest.load(saved(tmp_path, manifest_of(schema=2)))
    plan = replace(plan_of(people(tmp_path, ["a"])), version=2)
    with pytest.raises(InputError, match="version 2 of the packing"):
        manifest.load(saved(tmp_path, manifest_of(plan)))


def test_an_input_that_has_changed_is_refused_even_at_the_same_size_and_time(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id", "a", "b")
    campaign = campaign_of(path)
    found = survey_campaign(campaign)
    file = manifest.input_file(path, stamp=found.stamp, sha256=found.sha256)
    assert manifest.check_unchanged(file, path) == found.stamp
    csv_file(tmp_path, "external_id", "a", "c")
    os.utime(path, ns=(found.stamp.written_ns, found.stamp.written_ns))
    with pytest.raises(InputError, match=r"recipients\.csv: has changed since the run began"):
        manifest.check_unchanged(file, path)
    path.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        manifest.check_unchanged(file, path)


# Going on in the middle


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.sampled_from([f"u{n}" for n in range(30)] + ["NULL"]), max_size=40),
    cap=st.integers(1, 7),
    dedupe=st.booleans(),
    max_bytes=st.integers(150, 400),
    is_personal=st.booleans(),
)
def test_packs_behind_a_boundary_are_the_same_again(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[str],
    cap: int,
    max_bytes: int,
    *,
    dedupe: bool,
    is_personal: bool,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    options: dict[str, Any] = {"dedupe": dedupe}
    if is_personal:
        options |= {"message": {"template_id": "t"}, "custom_data": {"n": "external_id"}, "pack_custom_data": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(survey, "MARK_ROWS", 3)
        campaign = people(folder, ids, **options)
        found = survey_campaign(campaign)
    plan = plan_of(campaign, cap=cap, max_bytes=max_bytes)
    packs = list(make_packs(plan, found.selection))
    work = campaign_work(
        plan, found.selection, rows=found.rows, total=found.to_send, stamp=found.stamp, marks=found.marks
    )
    items = list(work.items())
    assert [item.job for item in items] == [pack.job for pack in packs]
    for item in items:
        if item.is_boundary:
            rest = [later for later in items if later.first_row >= item.end]
            assert list(work.items(item.end)) == rest
    if can_begin_anew(found.selection) and items:
        assert list(make_packs(plan, found.selection, first_row=items[-1].end)) == []


def test_reading_goes_on_at_the_mark_before_and_not_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "MARK_ROWS", 5_000)
    campaign = people(tmp_path, [f"u{n:06}" for n in range(40_000)])
    found = survey_campaign(campaign)
    assert found.marks[0].row == 0
    assert all(b.row - a.row >= 5_000 for a, b in zip(found.marks, found.marks[1:], strict=False))
    plan = plan_of(campaign, cap=100)
    work = campaign_work(
        plan, found.selection, rows=found.rows, total=found.to_send, stamp=found.stamp, marks=found.marks
    )
    path = campaign.recipients.file
    content = path.read_bytes()
    head = len("external_id\n")
    path.write_bytes(content[:head] + b"#" * 100_000 + content[head + 100_000 :])  # what is not read again
    os.utime(path, ns=(found.stamp.written_ns, found.stamp.written_ns))
    rest = list(work.items(39_800))
    assert [item.first_row for item in rest] == [39_800, 39_900]
    assert rest[0].job.to.ids[0] == "u039800"  # type: ignore[union-attr]


# What was begun before


def test_nobody_begins_the_same_twice(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "state")
    identity = campaign_identity(app_id="a", name="n", edition=1)
    first = Begun("run-1", "/runs/run-1", "n", 1.5)
    assert registry.find(identity) is None
    assert registry.enter(identity, first)
    assert not registry.enter(identity, Begun("run-2", "/runs/run-2", "n", 2.5))
    assert Registry(tmp_path / "state").find(identity) == first
    (path,) = (tmp_path / "state" / "begun").iterdir()
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    path.write_bytes(b"{")
    with pytest.raises(StorageError, match="is damaged, and says that this was begun before"):
        registry.find(identity)
    registry.withdraw(identity)
    registry.withdraw(identity)
    assert registry.find(identity) is None


def test_what_identifies_a_campaign_jobs_and_a_retry() -> None:
    made = {
        campaign_identity(app_id="a", name="n", edition=1),
        campaign_identity(app_id="b", name="n", edition=1),
        campaign_identity(app_id="a", name="m", edition=1),
        campaign_identity(app_id="a", name="n", edition=2),
        jobs_identity(app_ids=["a", "b"], digest="d", edition=1),
        jobs_identity(app_ids=["a"], digest="d", edition=1),
        jobs_identity(app_ids=["a"], digest="e", edition=1),
        jobs_identity(app_ids=["a"], digest="e", edition=2),
        retry_identity(run="r"),
        retry_identity(run="s"),
    }
    assert len(made) == 10
    assert jobs_identity(app_ids=["b", "a"], digest="d", edition=1) in made


def test_times_keep_their_zone(tmp_path: Path) -> None:
    plan = plan_of(people(tmp_path, ["a"], expires_in_s=60.0), started_at=datetime(2026, 11, 21, 12, tzinfo=UTC))
    found = manifest.load(saved(tmp_path, manifest_of(plan))).plan
    assert found == plan
