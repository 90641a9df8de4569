"""What the app's own page tells doctor."""

import orjson
import pytest

from sendengine.cli.appcheck import check_app
from sendengine.ports import Reply
from sendengine.settings import AppSettings


def app_with(*, subscribed_users: int | None = None) -> AppSettings:
    app_id = "8250eaf6-1a58-489e-b136-7c74a864b434"
    if subscribed_users is None:
        return AppSettings(app_id=app_id, api_key="k")
    return AppSettings(app_id=app_id, api_key="k", subscribed_users=subscribed_users)


def page(**fields: object) -> Reply:
    return Reply(status=200, headers={}, body=orjson.dumps(fields))


def test_the_page_gives_name_key_and_subscribers() -> None:
    check = check_app("shop", app_with(), page(name="The Shop", messageable_players=1000))
    assert (check.name, check.result) == ("app shop", "ok")
    # 10 x 1,000 subscribed users, of which 0.7 are ours by default
    assert check.detail == (
        "The Shop, the key is accepted, 1,000 subscribed users, so up to 7,000 deliveries in 15 minutes"
    )


def test_a_number_of_subscribed_users_above_the_true_one_is_a_warning() -> None:
    check = check_app("shop", app_with(subscribed_users=2000), page(name="The Shop", messageable_players=1000))
    assert check.result == "warn"
    assert "subscribed_users = 2000 is more than there are" in check.mend


@pytest.mark.parametrize("people", [{}, {"messageable_players": 0}, {"messageable_players": "many"}])
def test_a_page_without_subscribers_is_a_warning(people: dict[str, object]) -> None:
    check = check_app("shop", app_with(), page(name="The Shop", **people))
    assert (check.result, check.detail) == ("warn", "The Shop, the key is accepted, subscribed users unknown")


@pytest.mark.parametrize(
    ("status", "body", "result", "detail"),
    [
        (401, b"", "fail", "OneSignal refused the key (status 401)"),
        (403, b'{"errors":["Access denied."]}', "fail", "OneSignal refused the key (status 403)"),
        (400, b"{}", "fail", "OneSignal refused the key (status 400)"),
        (404, b"{}", "fail", "OneSignal knows no app 8250eaf6-1a58-489e-b136-7c74a864b434"),
        (429, b"", "warn", "OneSignal asks to wait (status 429)"),
        (503, b"upstream connect error", "warn", "no usable answer (status 503)"),
        (200, b"<html>", "warn", "no usable answer (status 200)"),
        (200, b"[]", "warn", "no usable answer (status 200)"),
    ],
)
def test_every_other_answer_says_what_to_do(status: int, body: bytes, result: str, detail: str) -> None:
    check = check_app("shop", app_with(), Reply(status=status, headers={}, body=body))
    assert (check.result, check.detail) == (result, detail)
    assert check.mend
