"""The second pass: the same campaign makes the same packs with the same keys, and everybody is in one of them."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.campaign.packs import Pack, make_packs, rows_of
from sendengine.campaign.rehearsal import make_test_packs
from sendengine.campaign.survey import survey_campaign
from sendengine.core.jobs import CreateNotification
from sendengine.errors import InputError
from tests.campaign.campaign_files import (
    APP_ID,
    HELLO,
    NOON,
    campaign_of,
    changes,
    csv_file,
    notifications,
    packs_of_campaign,
    people,
    plan_of,
)

OTHER_APP_ID = "11111111-1a58-489e-b136-7c74a864b434"
NAMED: Mapping[str, Any] = {"message": {"template_id": "t"}, "custom_data": {"name": "first"}}


def keys(packs: list[Pack]) -> list[str | None]:
    return [pack.job.idempotency_key for pack in packs]


def stretches(packs: list[Pack]) -> list[tuple[int, int]]:
    return [(pack.first_row, pack.size) for pack in packs]


def test_packs_are_full_in_the_order_of_the_file(tmp_path: Path) -> None:
    _, packs = packs_of_campaign(people(tmp_path, ["a", "b", "NULL", "c", "a", "d", "e", "b"]), cap=2)
    assert [job.to.ids for job in notifications(packs)] == [("a", "b"), ("c", "d"), ("e",)]
    assert stretches(packs) == [(0, 2), (2, 4), (6, 1)]
    first = notifications(packs)[0]
    assert (first.channel, first.app, first.message, first.to.label) == ("push", "shop", HELLO, "external_id")


def test_the_key_follows_the_recipe(tmp_path: Path) -> None:
    _, packs = packs_of_campaign(people(tmp_path, ["a", "b"]), edition=2)
    body = (
        b'{"app_id":"' + APP_ID.encode() + b'","contents":{"en":"Hello"},"target_channel":"push",'
        b'"include_aliases":{"external_id":["a","b"]}}'
    )
    recipe = f'["campaign","greeting",2,"{sha256(body).hexdigest()}",1]'
    assert keys(packs) == [str(uuid5(UUID(APP_ID), recipe))]


def test_keys_follow_the_content_and_the_identity_of_the_campaign(tmp_path: Path) -> None:
    def first_key(ids: list[str], **options: object) -> str | None:
        wanted = {name: options.pop(name) for name in ("edition", "app_id", "started_at") if name in options}
        return keys(packs_of_campaign(people(tmp_path, ids, **options), **wanted)[1])[0]

    usual = first_key(["a", "b"])
    assert usual == first_key(["a", "b"], urgency="high", started_at=NOON + timedelta(hours=1))
    others = [
        first_key(["a", "c"]),
        first_key(["b", "a"]),
        first_key(["a", "b"], message={"contents": {"en": "Hello!"}}),
        first_key(["a", "b"], channel="email", message={"email_subject": "x", "email_body": "y"}),
        first_key(["a", "b"], target="crm_id"),
        first_key(["a", "b"], name="another"),
        first_key(["a", "b"], edition=2),
        first_key(["a", "b"], app_id=OTHER_APP_ID),
        first_key(["a", "b"], expires_in_s=60.0),
        first_key(["a", "b"], expires_at=NOON + timedelta(hours=5)),
        first_key(["a", "b"], expires_at=NOON + timedelta(hours=6)),
    ]
    assert len({usual, *others}) == len(others) + 1


def test_a_deadline_is_a_ttl_that_is_fixed_once_and_moves_no_key(tmp_path: Path) -> None:
    campaign = people(tmp_path, ["a"], expires_at=NOON + timedelta(hours=2))
    _, packs = packs_of_campaign(campaign)
    _, later = packs_of_campaign(campaign, started_at=NOON + timedelta(hours=1))
    assert notifications(packs)[0].message == {**HELLO, "ttl": 7200}
    assert notifications(later)[0].message == {**HELLO, "ttl": 3600}
    assert notifications(packs)[0].expires_at == NOON + timedelta(hours=2)
    assert keys(packs) == keys(later)
    _, packs = packs_of_campaign(people(tmp_path, ["a"], expires_in_s=90.5))
    assert notifications(packs)[0].message == {**HELLO, "ttl": 91}
    assert notifications(packs)[0].expires_at == NOON + timedelta(seconds=90.5)
    _, packs = packs_of_campaign(people(tmp_path, ["a"], expires_in_s=60.0, message={**HELLO, "ttl": 5}))
    assert notifications(packs)[0].message["ttl"] == 5
    with pytest.raises(InputError, match="has passed; nothing would be delivered"):
        plan_of(people(tmp_path, ["a"], expires_at=datetime(2026, 11, 21, 11, tzinfo=UTC)))


def test_without_dedupe_nobody_is_twice_in_a_request_and_equal_requests_have_keys_of_their_own(tmp_path: Path) -> None:
    _, packs = packs_of_campaign(people(tmp_path, ["a", "b", "a", "b", "c"], dedupe=False), cap=3)
    assert [job.to.ids for job in notifications(packs)] == [("a", "b"), ("a", "b", "c")]
    _, packs = packs_of_campaign(people(tmp_path, ["a", "a", "a", "b"], dedupe=False), cap=3)
    assert [job.to.ids for job in notifications(packs)] == [("a",), ("a",), ("a", "b")]
    assert len(set(keys(packs))) == 3
    _, again = packs_of_campaign(people(tmp_path, ["a", "a", "a", "b"], dedupe=False), cap=3)
    assert keys(again) == keys(packs)


def test_a_pack_over_the_cap_of_bytes_is_halved(tmp_path: Path) -> None:
    # A body of k such ids takes 136 + 103 k - 1 bytes, and its key is taken for 64: 611 bytes for four of them.
    ids = [f"{n}{'x' * 99}" for n in range(8)] + ["y"]
    _, packs = packs_of_campaign(people(tmp_path, ["NULL", *ids]), max_bytes=612)
    assert [job.to.ids for job in notifications(packs)] == [tuple(ids[:4]), tuple(ids[4:6]), tuple(ids[6:])]
    assert stretches(packs) == [(0, 5), (5, 2), (7, 3)]


def test_each_row_of_custom_data_has_a_request_of_its_own(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "external_id,first", "a,Ann", "b,Bob", "a,Ann")
    campaign = campaign_of(
        file,
        message={"template_id": "t", "custom_data": {"shop": 1, "name": "?"}},
        custom_data={"name": "first", "id": "external_id"},
    )
    _, packs = packs_of_campaign(campaign)
    assert [(job.to.ids, job.message) for job in notifications(packs)] == [
        (("a",), {"template_id": "t", "custom_data": {"shop": 1, "name": "Ann", "id": "a"}}),
        (("b",), {"template_id": "t", "custom_data": {"shop": 1, "name": "Bob", "id": "b"}}),
    ]


def test_custom_data_is_packed_by_user_up_to_the_cap(tmp_path: Path) -> None:
    # {"users":{}} is 12 bytes, and each "uN":{"name":"…"} 16 around its text, with a comma between: with texts of
    # 1,000 two fit into 2,048 bytes (12 + 2 × 1,016 + 1 = 2,045), a byte more in each and still (2,047), two not.
    for length, packed in ((1000, [2, 2, 1]), (1001, [2, 2, 1]), (1002, [1, 1, 1, 1, 1])):
        file = csv_file(tmp_path, "external_id,first", *(f"u{n},{'x' * length}" for n in range(5)))
        _, packs = packs_of_campaign(campaign_of(file, pack_custom_data=True, **NAMED))
        assert [pack.recipients for pack in packs] == packed, length
        users = notifications(packs)[0].message["custom_data"]
        assert orjson.dumps(users) == orjson.dumps(
            {"users": {f"u{n}": {"name": "x" * length} for n in range(packed[0])}}
        )


def test_user_changes_keep_what_an_empty_cell_leaves_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"external_id": "a", "level": 5, "vip": True, "lat": 48.2},
        {"external_id": "b", "level": "", "vip": None, "lang": "de"},
        {"external_id": "a", "level": "6"},
        {"external_id": "c"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    campaign = campaign_of(
        path,
        kind="update_user",
        dedupe=False,
        tags={"level": "level", "vip": "vip"},
        properties={"language": "lang", "lat": "lat"},
        on_missing="retry",
    )
    _, packs = packs_of_campaign(campaign)
    assert [(job.user.ids[0], job.tags, job.properties) for job in changes(packs)] == [
        ("a", {"level": "5", "vip": "true"}, {"lat": 48.2}),
        ("b", {}, {"language": "de"}),
        ("a", {"level": "6"}, {}),
    ]
    assert changes(packs)[0].on_missing == "retry"
    assert stretches(packs) == [(0, 1), (1, 1), (2, 1)]


def test_numbers_of_a_csv_file_arrive_as_numbers(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "external_id,lat,seen", "a,48.2,1700000000")
    _, packs = packs_of_campaign(
        campaign_of(file, kind="update_user", dedupe=False, properties={"lat": "lat", "first_active": "seen"})
    )
    assert changes(packs)[0].properties == {"lat": 48.2, "first_active": 1_700_000_000}


ids = st.lists(st.sampled_from(["a", "b", "c", "d", "NULL", "ü/1"]), max_size=30)


@settings(max_examples=60)
@given(ids=ids, cap=st.integers(1, 7), dedupe=st.booleans(), max_bytes=st.integers(150, 400))
def test_packing_loses_and_doubles_nobody_and_is_the_same_again(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str], cap: int, *, dedupe: bool, max_bytes: int
) -> None:
    campaign = people(tmp_path_factory.getbasetemp(), ids, dedupe=dedupe)
    survey, packs = packs_of_campaign(campaign, cap=cap, max_bytes=max_bytes)
    jobs = notifications(packs)
    sent = Counter(item for job in jobs for item in job.to.ids)
    wanted = Counter(item for item in ids if item != "NULL")
    assert sent == (Counter(set(wanted)) if dedupe else wanted)
    assert sum(pack.recipients for pack in packs) == survey.to_send
    assert all(len(set(job.to.ids)) == len(job.to.ids) <= cap for job in jobs)
    assert all(job.to.are_distinct for job in jobs)
    assert len(set(keys(packs))) == len(packs)
    assert keys(packs_of_campaign(campaign, cap=cap, max_bytes=max_bytes)[1]) == keys(packs)
    end = 0
    for pack in packs:
        assert pack.first_row == end
        end += pack.size
        rows = rows_of(survey.selection, first_row=pack.first_row, size=pack.size)
        assert isinstance(pack.job, CreateNotification)
        assert tuple(ids[row] for row in rows) == pack.job.to.ids


# Tests of a campaign


def test_a_test_goes_to_its_ids_alone_under_keys_of_its_own(tmp_path: Path) -> None:
    campaign = people(tmp_path, ["a", "b", "c"])
    survey, packs = packs_of_campaign(campaign)
    plan = plan_of(campaign)
    tests = list(make_test_packs(plan, survey.selection, ["c", "a", "c", "zoe"], run="run-1"))
    assert [job.to.ids for job in notifications(tests)] == [("c", "a", "zoe")]
    same = list(make_test_packs(plan, survey.selection, ["a", "b", "c"], run="run-1"))
    other = list(make_test_packs(plan, survey.selection, ["a", "b", "c"], run="run-2"))
    assert len({*keys(packs), *keys(same), *keys(other)}) == 3


def test_a_test_takes_its_data_from_the_file(tmp_path: Path) -> None:
    file = csv_file(tmp_path, "external_id,first", "NULL,No", "a,Ann", "b,Bob")
    campaign = campaign_of(file, **NAMED)
    tests = list(make_test_packs(plan_of(campaign), survey_campaign(campaign).selection, ["b", "zoe"], run="run-1"))
    assert [(job.to.ids, job.message["custom_data"]) for job in notifications(tests)] == [
        (("b",), {"name": "Bob"}),
        (("zoe",), {"name": "Ann"}),
    ]


def test_a_test_refuses_whom_it_cannot_or_must_not_reach(tmp_path: Path) -> None:
    optout = csv_file(tmp_path, "external_id", "b", name="optout.csv")
    campaign = people(tmp_path, ["a", "b"], exclude=optout)
    selection = survey_campaign(campaign).selection
    for wanted, fence, told in (
        (["b"], (), "'b' stands in .*optout.csv, which is never sent to"),
        (["NULL"], (), "'NULL' is a placeholder"),
        (["a"], ("external_id:qa",), "'a' is not in the app's only_to"),
    ):
        with pytest.raises(InputError, match=told):
            list(make_test_packs(plan_of(campaign), selection, wanted, run="run-1", only_to=fence))
    file = csv_file(tmp_path, "external_id,level", "a,5")
    update = campaign_of(file, kind="update_user", dedupe=False, tags={"level": "level"})
    with pytest.raises(InputError, match="'zoe' has no row in"):
        list(make_test_packs(plan_of(update), survey_campaign(update).selection, ["zoe"], run="run-1"))


def test_packs_of_a_file_that_is_gone_say_so(tmp_path: Path) -> None:
    campaign = people(tmp_path, ["a"])
    selection = survey_campaign(campaign).selection
    campaign.recipients.file.unlink()
    with pytest.raises(InputError, match="there is no such file"):
        list(make_packs(plan_of(campaign), selection))
