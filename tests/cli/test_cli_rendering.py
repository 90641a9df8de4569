"""Requests as a dry run shows them."""

from sendengine.cli.rendering import render, text_of
from sendengine.core.jobs import CreateNotification, UpdateUser
from sendengine.core.targets import external_id

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"
HI = {"contents": {"en": "Hi"}}


def test_a_notification_shows_its_first_three_recipients_and_how_many_more() -> None:
    ids = [f"u-{n}" for n in range(2000)]
    shown = render(CreateNotification(to=external_id(*ids), channel="push", message=HI), app_id=APP_ID)
    assert (shown.method, shown.path, shown.more) == ("POST", "/notifications", 1997)
    assert shown.body == {
        "app_id": APP_ID,
        "contents": {"en": "Hi"},
        "target_channel": "push",
        "include_aliases": {"external_id": ["u-0", "u-1", "u-2"]},
        "idempotency_key": "chosen when it is sent",
    }
    assert text_of(shown).endswith("\n… and 1,997 more recipients")


def test_a_key_is_shown_as_it_goes_over_the_wire() -> None:
    job = CreateNotification(to=external_id("u-1"), channel="push", message=HI, idempotency_key=APP_ID.upper())
    body = render(job, app_id=APP_ID).body
    assert isinstance(body, dict)
    assert body["idempotency_key"] == APP_ID


def test_a_user_update_shows_its_escaped_path_and_its_tags_as_text() -> None:
    shown = render(UpdateUser(external_id("a/b ü"), tags={"level": 5, "old": None}), app_id=APP_ID)
    assert text_of(shown).splitlines()[0] == f"PATCH /apps/{APP_ID}/users/by/external_id/a%2Fb%20%C3%BC"
    assert shown.body == {"properties": {"tags": {"level": "5", "old": ""}}}
