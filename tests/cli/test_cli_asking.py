"""Care before sending: confirmation, expectations, and going below the settings."""

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from sendengine.cli import asking
from sendengine.cli.asking import Expectation, confirm
from sendengine.cli.options import seconds_of
from sendengine.cli.slower import slowed
from sendengine.errors import InputError, SettingsError
from sendengine.settings import AppSettings, CeilingSettings, Settings

APP_ID = "8250eaf6-1a58-489e-b136-7c74a864b434"


def asked(
    monkeypatch: pytest.MonkeyPatch, recipients: int | None, *, typed: str | None, is_sure: bool = False
) -> tuple[str, str]:
    """Return what came of it, and what was asked; ``typed`` None where nobody can be asked."""
    monkeypatch.setattr(asking, "can_ask", lambda: typed is not None)

    @click.command()
    def ask() -> None:
        try:
            click.echo("sent" if confirm(name="black-friday", recipients=recipients, is_sure=is_sure) else "not sent")
        except InputError as error:
            click.echo(f"refused: {error}")

    result = CliRunner().invoke(ask, input=typed)
    return result.stdout.strip(), result.stderr


@pytest.mark.parametrize(
    ("recipients", "typed", "is_sure", "came_of_it"),
    [
        (1000, "y\n", False, "sent"),
        (1000, "n\n", False, "not sent"),
        (1000, "\n", False, "not sent"),
        (1001, "y\n", False, "not sent"),
        (1001, "black-friday\n", False, "sent"),
        (1001, "black friday\n", False, "not sent"),
        (1001, "\n", False, "not sent"),
        (None, "y\n", False, "not sent"),
        (None, "black-friday\n", False, "sent"),
        (1001, "", True, "sent"),
        (1000, None, False, "sent"),
        (1001, None, True, "sent"),
        (None, None, True, "sent"),
    ],
)
def test_what_it_takes_to_send(
    monkeypatch: pytest.MonkeyPatch,
    recipients: int | None,
    typed: str | None,
    is_sure: bool,
    came_of_it: str,
) -> None:
    assert asked(monkeypatch, recipients, typed=typed, is_sure=is_sure)[0] == came_of_it


@pytest.mark.parametrize(
    ("recipients", "count"), [(1001, "1,001 recipients are"), (None, "an unknown number of recipients may be")]
)
def test_where_nobody_can_be_asked_many_recipients_need_yes(
    monkeypatch: pytest.MonkeyPatch, recipients: int | None, count: str
) -> None:
    came_of_it, _ = asked(monkeypatch, recipients, typed=None)
    assert came_of_it == (
        f"refused: black-friday: {count} more than 1,000, and nobody can be asked here; "
        "add --yes to send all the same. Nothing was sent"
    )


def test_an_end_of_the_input_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, 5, typed="")[0] == ""


@pytest.mark.parametrize(
    ("expected", "within", "found", "is_right"),
    [
        (100, 0.0, 100, True),
        (100, 0.0, 101, False),
        (100, 0.02, 102, True),
        (100, 0.02, 98, True),
        (100, 0.02, 103, False),
        (100, 0.02, 97, False),
        (0, 0.02, 0, True),
        (0, 0.02, 1, False),
    ],
)
def test_an_expectation_stops_before_the_first_request(
    expected: int,
    within: float,
    found: int,
    is_right: bool,
) -> None:
    expectation = Expectation(expected, within)
    if is_right:
        expectation.check(found, noun="recipients")
        return
    with pytest.raises(InputError, match=f"--expect {expected}: "):
        expectation.check(found, noun="recipients")


# --share and --rate


def settings_with(*, share: float = 1.0, create: float | None = None) -> Settings:
    app = AppSettings(
        app_id=APP_ID, api_key="k", plan="paid", share=share, ceilings=CeilingSettings(create_notification=create)
    )
    return Settings(apps={"shop": app, "other": app})


@pytest.mark.parametrize(
    ("of_settings", "share", "rate", "share_then", "create_then", "update_then"),
    [
        (1.0, 0.6, None, 0.6, None, None),
        (0.5, 0.6, None, 0.5, None, None),  # never above the settings
        (1.0, None, 500, 1.0, 500, 500),
        (1.0, None, 3000, 1.0, 3000, 1000),  # a user update's ceiling is 1,000
        (1.0, None, 9000, 1.0, 6000, 1000),
        (0.5, None, 500, 0.5, 1000, 1000),  # half of a ceiling of 1,000 is 500
        (1.0, 0.5, 100, 0.5, 200, 200),
    ],
)
def test_share_and_rate_go_below_the_settings(
    of_settings: float,
    share: float | None,
    rate: float | None,
    share_then: float,
    create_then: float | None,
    update_then: float | None,
) -> None:
    settings = slowed(settings_with(share=of_settings), apps=["shop"], share=share, rate=rate)
    app = settings.apps["shop"]
    assert (app.share, app.ceilings.create_notification, app.ceilings.update_user) == (
        share_then,
        create_then,
        update_then,
    )
    assert settings.apps["other"] == settings_with(share=of_settings).apps["other"]


@given(
    st.floats(0.01, 1), st.none() | st.floats(0.01, 1), st.none() | st.floats(0.1, 1e6), st.none() | st.floats(2, 1e5)
)
def test_no_lane_is_ever_faster_than_the_settings_or_the_flags(
    of_settings: float, share: float | None, rate: float | None, create: float | None
) -> None:
    app = slowed(settings_with(share=of_settings, create=create), apps=["shop"], share=share, rate=rate).apps["shop"]
    ceiling = app.ceilings.create_notification or 6000
    assert app.share <= min(of_settings, share or 1)
    assert ceiling * app.share <= (create or 6000) * of_settings * 1.000001
    assert rate is None or ceiling * app.share <= rate * 1.000001


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(SettingsError, match="must be a number above 0 and at most 1"):
        slowed(settings_with(), apps=["shop"], share=0, rate=None)


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("90s", 90), ("1.5m", 90), ("6h", 21_600), ("0", 0)])
def test_a_length_of_time_has_a_unit_or_is_in_seconds(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds
