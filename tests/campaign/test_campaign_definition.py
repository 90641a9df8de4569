from datetime import UTC, datetime
from pathlib import Path

import pytest

from sendengine.campaign.definition import load_campaign
from sendengine.errors import InputError

NOTIFICATION = """
[campaign]
name = "black-friday"
app = "shop"
channel = "push"
message.contents.en = "24 hours only"
[campaign.recipients]
file = "recipients.csv"
column = "external_id"
target = "external_id"
"""
UPDATE = """
[campaign]
name = "loyalty-import"
kind = "update_user"
[campaign.recipients]
file = "users.csv"
column = "external_id"
target = "external_id"
[campaign.tags]
level = "loyalty_level"
[campaign.properties]
language = "lang"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "campaign.toml"
    path.write_text(text, encoding="utf-8")
    return path


def problem(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        load_campaign(written(folder, text))
    assert str(caught.value).startswith(str(folder / "campaign.toml"))
    return str(caught.value).removeprefix(f"{folder / 'campaign.toml'}: ")


def test_a_notification_campaign_is_read_with_its_defaults(tmp_path: Path) -> None:
    campaign = load_campaign(written(tmp_path, NOTIFICATION))
    assert (campaign.name, campaign.app, campaign.channel, campaign.kind) == (
        "black-friday",
        "shop",
        "push",
        "create_notification",
    )
    assert campaign.message == {"contents": {"en": "24 hours only"}}
    assert campaign.recipients.file == tmp_path / "recipients.csv"
    assert campaign.dedupe
    assert campaign.columns == ()


def test_a_campaign_of_user_changes_names_its_columns_and_never_dedupes(tmp_path: Path) -> None:
    campaign = load_campaign(written(tmp_path, UPDATE))
    assert campaign.tags == {"level": "loyalty_level"}
    assert campaign.columns == ("loyalty_level", "lang")
    assert not campaign.dedupe


def test_options_exclusions_and_custom_data_are_read(tmp_path: Path) -> None:
    text = NOTIFICATION.replace(
        'message.contents.en = "24 hours only"',
        'message.template_id = "t"\nexpires_at = 2026-11-27T08:00:00Z\nurgency = "high"\ndedupe = false',
    )
    text += '[campaign.exclude]\nfile = "sub/optout.csv"\ncolumn = "id"\n[campaign.custom_data]\nfirst = "first_name"\n'
    campaign = load_campaign(written(tmp_path, text))
    assert campaign.exclude is not None
    assert campaign.exclude.file == tmp_path / "sub/optout.csv"
    assert campaign.custom_data == {"first": "first_name"}
    assert campaign.expires_at == datetime(2026, 11, 27, 8, tzinfo=UTC)
    assert (campaign.urgency, campaign.dedupe) == ("high", False)


def test_times_in_the_message_become_text(tmp_path: Path) -> None:
    text = NOTIFICATION.replace("message.contents", "message.send_after = 2026-11-27T08:00:00Z\nmessage.contents")
    assert load_campaign(written(tmp_path, text)).message["send_after"] == "2026-11-27T08:00:00+00:00"


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        ('name = "black-friday"\n', "", "campaign.name: is missing"),
        ('name = "black-friday"', 'name = ""', "campaign.name: a printable text"),
        ('name = "black-friday"', "name = 7", "campaign.name: expected `str`, got `int`"),
        ('channel = "push"', 'chanel = "push"', "campaign.chanel: there is no such key; did you mean 'channel'?"),
        ('channel = "push"', 'channel = "pusch"', "campaign.channel: got 'pusch'; did you mean 'push'?"),
        ('channel = "push"\n', "", "campaign.channel: missing; an alias target needs one of push, email, sms"),
        ('channel = "push"', 'kind = "update_users"', "campaign.kind: got 'update_users'; did you mean 'update_user'?"),
        ('column = "external_id"', 'colum = "x"', "campaign.recipients.colum: there is no such key; did you mean"),
        ('column = "external_id"\n', "", "campaign.recipients.column: is missing"),
        ('file = "recipients.csv"', "file = 3", "campaign.recipients.file: expected a file's path"),
        (
            'file = "recipients.csv"',
            'file = "~nobody-of-that-name/r.csv"',
            "campaign.recipients.file: there is no home directory for its ~ here; write the whole path",
        ),
        ('target = "external_id"', 'target = "external_ids"', "did you mean 'external_id'?"),
        ('target = "external_id"', 'target = "segments"', "segments have no file of recipients"),
        ('target = "external_id"', 'target = ""', "campaign.recipients.target: an alias label of 1 to 128"),
        ('target = "external_id"', 'target = "email"', "campaign.recipients.create_subscriptions: is missing"),
        ('app = "shop"', "tags = { level = 'l' }", "campaign.tags: does not belong to a campaign of kind"),
        ('app = "shop"', "expires_at = 2026-11-27T08:00:00", "campaign.expires_at: a time with its zone"),
        ('app = "shop"', 'expires_at = "tomorrow"', "campaign.expires_at: a time with its zone"),
        ('app = "shop"', "expires_in_s = 0", "campaign.expires_in_s: seconds from 1 up"),
        ('app = "shop"', "expires_in_s = 1e300", "campaign.expires_in_s: seconds from 1 up to 3,162,240,000"),
        ('app = "shop"', "expires_in_s = nan", "campaign.expires_in_s: seconds from 1 up"),
        ('app = "shop"', "expires_in_s = 5\nexpires_at = 2026-11-27T08:00:00Z", "give expires_at or expires_in_s"),
        ('app = "shop"', 'urgency = "asap"', "campaign.urgency: got 'asap'"),
        ('app = "shop"', "message.ttl = inf", "campaign.message.ttl: has no JSON form"),
        ('app = "shop"', "message.to = 'x'", "campaign.message.to: a job has one target"),
        ('app = "shop"', "message.app_id = 'x'", "campaign.message.app_id: name the app of the settings"),
        ('app = "shop"', "message.send_after = 2026-11-27", "campaign.message.send_after: has no JSON form"),
        ('app = "shop"', "custom_data = { a = 'b' }", "campaign.custom_data: goes with a template"),
        ('app = "shop"', "pack_custom_data = true", "campaign.pack_custom_data: there is nothing to pack"),
        ("[campaign.recipients]", "[recipients]", "recipients: there is no such table"),
        ('app = "shop"', "app = ", "is not TOML"),
    ],
)
def test_every_fault_names_its_key_and_how_to_mend_it(tmp_path: Path, line: str, instead: str, told: str) -> None:
    assert line in NOTIFICATION
    assert told in problem(tmp_path, NOTIFICATION.replace(line, instead, 1))


@pytest.mark.parametrize(
    ("line", "instead", "told"),
    [
        (
            'kind = "update_user"',
            'kind = "update_user"\nmessage.contents.en = "x"',
            "campaign.message: does not belong",
        ),
        ('kind = "update_user"', 'kind = "update_user"\ndedupe = true', "campaign.dedupe: does not belong"),
        ('target = "external_id"', 'target = "subscription_id"', "a user is named by an alias"),
        ('[campaign.tags]\nlevel = "loyalty_level"\n[campaign.properties]\nlanguage = "lang"\n', "", "changes nothing"),
        ('language = "lang"', 'tags = "lang"', "campaign.properties.tags: tags stand in [campaign.tags]"),
        ('level = "loyalty_level"', '"" = "loyalty_level"', "campaign.tags: a tag's name is a non-empty string"),
    ],
)
def test_so_does_every_fault_of_user_changes(tmp_path: Path, line: str, instead: str, told: str) -> None:
    assert line in UPDATE
    assert told in problem(tmp_path, UPDATE.replace(line, instead, 1))


def test_packed_custom_data_is_found_by_external_id_only(tmp_path: Path) -> None:
    text = NOTIFICATION.replace('message.contents.en = "24 hours only"', 'message.template_id = "t"')
    text = text.replace('app = "shop"', 'pack_custom_data = true\ncustom_data = { a = "b" }')
    load_campaign(written(tmp_path, text))
    assert "needs target" in problem(tmp_path, text.replace('target = "external_id"', 'target = "crm_id"'))
    assert "choose another" in problem(tmp_path, text.replace('{ a = "b" }', '{ users = "b" }'))


def test_a_file_that_is_no_campaign_is_named(tmp_path: Path) -> None:
    assert "has no table [campaign]" in problem(tmp_path, "")
    assert "is not TOML: maximum recursion depth exceeded" in problem(tmp_path, f"a = {'[' * 2000}")
    (tmp_path / "campaign.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not UTF-8"):
        load_campaign(tmp_path / "campaign.toml")
    with pytest.raises(InputError, match="there is no such file"):
        load_campaign(tmp_path / "another.toml")
    with pytest.raises(InputError, match="cannot be read"):
        load_campaign(tmp_path)
