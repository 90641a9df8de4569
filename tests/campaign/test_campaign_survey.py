"""The first pass: every row is counted once, and what is wrong with it is told with its line."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from sendengine.campaign import survey as survey_module
from sendengine.campaign.packs import make_packs
from sendengine.campaign.survey import BILLING_WARNING, Survey, survey_campaign
from sendengine.errors import InputError
from tests.campaign.campaign_files import campaign_of, csv_file, people, plan_of

UUID = "8250eaf6-1a58-489e-b136-7c74a864b434"


def counted(survey: Survey) -> tuple[int, int, int, int, int]:
    return survey.rows, survey.to_send, survey.invalid, survey.duplicates, survey.excluded


def told(survey: Survey) -> list[str]:
    return [str(fault) for fault in survey.faults]


@pytest.mark.parametrize(
    ("target", "item", "problem"),
    [
        ("external_id", "u 1/ü", None),
        ("external_id", "", "is empty"),
        ("external_id", "  ", "is empty"),
        ("external_id", "\u2003", "is empty"),
        ("external_id", "\x1f\t", "is empty"),
        ("external_id", "two words", None),
        ("external_id", "NULL", "'NULL' is a placeholder, which OneSignal refuses"),
        ("external_id", "-1", "'-1' is a placeholder, which OneSignal refuses"),
        ("external_id", "x" * 128, None),
        ("external_id", "x" * 129, f"has 129 characters, at most 128 are taken: {'x' * 40}…"),
        ("crm_id", "0", None),
        ("crm_id", "", "is empty"),
        ("subscription_id", UUID.upper(), None),
        ("subscription_id", UUID[:-1], f"'{UUID[:-1]}' is no UUID, and a subscription id is one"),
        (
            "subscription_id",
            UUID.replace("-", ""),
            f"'{UUID.replace('-', '')}' is no UUID, and a subscription id is one",
        ),
        ("email", "ann.o'hara+x@mail.example.co.uk", None),
        ("email", "jürgen@exämple.de", None),
        ("email", "ann@example", "'ann@example' is no e-mail address"),
        ("email", "ann@@example.com", "'ann@@example.com' is no e-mail address"),
        ("email", "ann smith@example.com", "'ann smith@example.com' is no e-mail address"),
        ("email", "ann@example..com", "'ann@example..com' is no e-mail address"),
        ("phone_number", "+14155550123", None),
        ("phone_number", "14155550123", "'14155550123' is no phone number as E.164 has it, such as +14155550123"),
        ("phone_number", "+04155550123", "'+04155550123' is no phone number as E.164 has it, such as +14155550123"),
        (
            "phone_number",
            "+1415555012345678",
            "'+1415555012345678' is no phone number as E.164 has it, such as +14155550123",
        ),
        ("phone_number", "+1 415 555", "'+1 415 555' is no phone number as E.164 has it, such as +14155550123"),
    ],
)
def test_ids_are_checked_as_onesignal_takes_them(tmp_path: Path, target: str, item: str, problem: str | None) -> None:
    file = csv_file(tmp_path, "who,n", f"{item},1")
    survey = survey_campaign(campaign_of(file, column="who", target=target))
    assert told(survey) == ([] if problem is None else [f"line 2: who: {problem}"])
    assert survey.to_send == (problem is None)


def test_each_row_is_counted_for_one_reason(tmp_path: Path) -> None:
    optout = csv_file(tmp_path, "external_id", "u3", "u9", name="optout.csv")
    lines = ["u1", "u2", "NULL", "u1", "u3", "u3", "u2"]
    survey = survey_campaign(people(tmp_path, lines, exclude=optout))
    assert counted(survey) == (7, 2, 1, 2, 2)
    assert told(survey) == ["line 4: external_id: 'NULL' is a placeholder, which OneSignal refuses"]


def test_unreadable_rows_are_invalid_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"external_id,n\nu1,1\nu2\nu\xff,3\nu4,4\n")
    survey = survey_campaign(campaign_of(path))
    assert counted(survey) == (4, 2, 2, 0, 0)
    assert [fault.line for fault in survey.faults] == [3, 4]


def test_an_export_leaves_out_and_counts_what_is_unusable(tmp_path: Path) -> None:
    path = csv_file(
        tmp_path,
        "id,identifier,invalid_identifier,external_user_id",
        f"{UUID},token,f,u1",
        "not-a-uuid,token,t,u1",
        f"{UUID[:-1]}5,token,f,",
        f"{UUID[:-1]}6,token,f,u1",
    )
    by_subscription = survey_campaign(campaign_of(path, column="id", target="subscription_id"))
    assert (counted(by_subscription), by_subscription.unusable) == ((4, 3, 0, 0, 1), 1)
    by_user = survey_campaign(campaign_of(path, column="external_user_id"))
    assert (counted(by_user), by_user.unusable) == ((4, 1, 0, 1, 2), 2)


def test_cells_that_a_template_needs_are_not_empty(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,first,city", "u1,Ann,Rome", "u2,,Rome", "u3,Cy,")
    campaign = campaign_of(path, message={"template_id": "t"}, custom_data={"name": "first", "town": "city"})
    assert told(survey_campaign(campaign)) == [
        "line 3: first: is empty, and the template needs it as name",
        "line 4: city: is empty, and the template needs it as town",
    ]


@pytest.mark.parametrize(
    ("options", "fits", "exceeds"),
    [
        # {"name":"…"} is 11 bytes around the text; {"users":{"u":{"name":"…"}}} is 27; {"k":1,"name":"…"} is 17.
        ({}, 2048 - 11, 2048 - 10),
        ({"pack_custom_data": True}, 2048 - 27, 2048 - 26),
        ({"message": {"template_id": "t", "custom_data": {"k": 1}}}, 2048 - 17, 2048 - 16),
    ],
)
def test_custom_data_of_a_row_fits_the_cap(tmp_path: Path, options: dict[str, Any], fits: int, exceeds: int) -> None:
    path = csv_file(tmp_path, "external_id,first", f"u,{'x' * fits}", f"v,{'x' * exceeds}")
    campaign = campaign_of(path, **{"message": {"template_id": "t"}, "custom_data": {"name": "first"}, **options})
    assert told(survey_campaign(campaign)) == [
        "line 3: first: makes custom_data of 2,049 bytes; at most 2,048 are taken"
    ]


def test_user_changes_apply_row_by_row_and_those_without_a_value_are_left_out(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,level,lang", "u1,5,", "u1,6,en", "u2,,", "u3,,de")
    campaign = campaign_of(
        path, kind="update_user", dedupe=False, tags={"level": "level"}, properties={"language": "lang"}
    )
    survey = survey_campaign(campaign)
    assert (counted(survey), survey.unchanged) == ((4, 3, 0, 0, 1), 1)


def test_numbers_among_the_properties_are_numbers(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,lat,seen", "u1,48.2,1700000000", "u2,north,", "u3,nan,", "u4,,1.5")
    campaign = campaign_of(path, kind="update_user", dedupe=False, properties={"lat": "lat", "last_active": "seen"})
    survey = survey_campaign(campaign)
    assert told(survey) == [
        "line 3: lat: 'north' is no number, and lat is one",
        "line 4: lat: 'nan' is no number, and lat is one",
        "line 5: seen: '1.5' is no number, and last_active is one",
    ]
    assert survey.warnings == (BILLING_WARNING,)


def test_a_number_that_json_does_not_hold_is_found_before_anything_is_sent(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,seen", "u1,5", f"u2,{2**64}", f"u3,{'9' * 400}", f"u4,{2**64 - 1}")
    campaign = campaign_of(path, kind="update_user", dedupe=False, properties={"last_active": "seen"})
    survey = survey_campaign(campaign)
    assert told(survey) == [
        "line 3: seen: '18446744073709551616' cannot be written as JSON: Integer exceeds 64-bit range",
        f"line 4: seen: '{'9' * 59}… cannot be written as JSON: Integer exceeds 64-bit range",
    ]
    assert len(list(make_packs(plan_of(campaign), survey.selection))) == survey.to_send == 2


def test_what_is_no_number_in_json_is_none_either(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"external_id": "u", "seen": seen} for seen in (5, 1.5, True, [1], {"a": 1})]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    campaign = campaign_of(path, kind="update_user", dedupe=False, properties={"last_active": "seen"})
    assert told(survey_campaign(campaign)) == [
        f"line {line}: seen: {seen} is no number, and last_active is one"
        for line, seen in enumerate(("True", "[1]", "{'a': 1}"), 3)
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "update_user", "dedupe": False, "properties": {"country": "seen"}},
        {"message": {"template_id": "t"}, "custom_data": {"a": "seen"}},
        {"message": {"template_id": "t"}, "custom_data": {"a": "seen"}, "pack_custom_data": True},
    ],
)
def test_what_no_job_takes_is_found_before_anything_is_sent(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.jsonl"
    cells = [json.dumps({"a": 2**64}), *(f"{'[' * levels}{']' * levels}" for levels in range(235, 260))]
    path.write_text("".join(f'{{"external_id":"u{row}","seen":{cell}}}\n' for row, cell in enumerate(cells)))
    campaign = campaign_of(path, **options)
    survey = survey_campaign(campaign)
    assert all("cannot be written as JSON: " in fault for fault in told(survey))
    assert survey.faults[0].line == 1
    packs = make_packs(plan_of(campaign), survey.selection)  # whose jobs raise where the survey overlooked one
    assert sum(pack.recipients for pack in packs) == survey.to_send == len(cells) - survey.invalid
    assert 1 < survey.invalid < len(cells)


def test_a_tag_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"external_id": "u", "level": level}) + "\n" for level in (5, True, "x", [1])))
    campaign = campaign_of(path, kind="update_user", dedupe=False, tags={"level": "level"})
    assert told(survey_campaign(campaign)) == [
        "line 4: level: is a list or an object, and the tag level is a text, a number or a boolean"
    ]


def test_a_fence_lets_only_its_own_through(tmp_path: Path) -> None:
    survey = survey_campaign(people(tmp_path, ["qa-1", "u1"]), only_to=("external_id:qa-1", "email:u1"))
    assert told(survey) == ["line 3: external_id: 'u1' is not in the app's only_to"]


def test_an_opt_out_that_cannot_be_read_stops_the_campaign(tmp_path: Path) -> None:
    optout = tmp_path / "optout.csv"
    optout.write_bytes(b"external_id\nu1\nu\xff\n")
    with pytest.raises(InputError, match="whom they name would be sent to") as caught:
        survey_campaign(people(tmp_path, ["u1"], exclude=optout))
    assert caught.value.faults == ("line 3: holds bytes that are not UTF-8; save the file as UTF-8",)


def test_an_opt_out_that_nobody_writes_into_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    optout = tmp_path / "optout.csv"
    os.mkfifo(optout)
    with pytest.raises(InputError, match="is a pipe"):
        survey_campaign(people(tmp_path, ["u1"], exclude=optout))


def test_an_opt_out_that_changes_between_its_two_readings_stops_the_campaign(tmp_path: Path) -> None:
    optout = csv_file(tmp_path, "external_id", "u1", name="optout.csv")
    hashed: list[str] = []

    def hash_of(key: str) -> int:
        hashed.append(key)
        if hashed == ["u1", "u2", "u1"]:  # of the recipients, and of the opt-outs
            optout.write_bytes(b"external_id\n")
        return hash(key)

    with pytest.raises(InputError, match=r"optout\.csv: has changed since it was checked"):
        survey_campaign(people(tmp_path, ["u1", "u2"], exclude=optout), hash_of=hash_of)


def test_addresses_are_the_same_whatever_their_case(tmp_path: Path) -> None:
    optout = csv_file(tmp_path, "external_id", "BOB@example.com", name="optout.csv")
    lines = ["ann@example.com", "Ann@Example.com", "bob@example.com"]
    survey = survey_campaign(people(tmp_path, lines, exclude=optout, column="external_id", target="email"))
    assert counted(survey) == (3, 1, 0, 1, 1)
    assert counted(survey_campaign(people(tmp_path, ["a", "A"]))) == (2, 2, 0, 0, 0)


def test_faults_beyond_the_listed_ones_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "FAULTS_KEPT", 3)
    survey = survey_campaign(people(tmp_path, ["NULL"] * 5))
    assert (survey.invalid, len(survey.faults)) == (5, 3)


def test_progress_is_told_and_a_missing_file_is_named(tmp_path: Path) -> None:
    reads: list[int] = []
    survey_campaign(people(tmp_path, [f"u{n}" for n in range(20_000)]), when_read=reads.append)
    assert reads == sorted(reads)
    assert reads[-1] == 20_000
    with pytest.raises(InputError, match="there is no such file"):
        survey_campaign(campaign_of(tmp_path / "missing.csv"))
