"""Settings as JSON and as options of a command line."""

import re
from pathlib import Path
from typing import cast

import pytest

from sendengine.errors import SettingsError
from sendengine.mockserver import (
    AppConfig,
    Fault,
    LaneLimit,
    MockConfig,
    MockServer,
    Option,
    config_from,
    options,
    parse_config,
)

GUIDE = Path(__file__).parents[2] / "docs" / "mockserver.md"


def test_every_switch_has_one_option_with_its_help_and_default() -> None:
    found = {option.name: option for option in options()}
    assert len(found) == len(options())
    assert all(option.help for option in found.values())
    plan, latency = found["--plan"], found["--latency-ms"]
    assert (plan.kind, plan.choices, plan.default) == ("choice", ("free", "paid"), "paid")
    assert (latency.kind, latency.default, latency.many) == ("float", 0.0, False)
    assert (found["--count-refused-users"].kind, found["--unsubscribed"].many) == ("flag", True)
    assert (found["--create-notification-burst"].kind, found["--create-notification-burst"].default) == ("int", None)
    assert (found["--api-key"].kind, found["--fault"].kind, found["--view-schedule"].kind) == ("text", "fault", "steps")
    assert (found["--channels"].kind, found["--channels"].many) == ("choice", True)
    assert (found["--tag-cap-status"].choices, found["--tag-cap-status"].default) == (("400", "409"), 409)


def test_given_options_make_settings() -> None:
    config = config_from(
        {
            "--latency-ms": 100.0,
            "--recipient-cap": "20000",
            "--tag-cap-status": "400",
            "--legacy-reply": True,
            "--plan": "free",
            "--channels": ("push", "sms"),
            "--unsubscribed": ["a", "b"],
            "--create-notification-rate": 4000,
            "--create-notification-foreign-schedule": "0=0.2,30=0.8",
            "--fault": ("503:0.03", "reset_after:0.03,lane=update_user"),
            "--api-key": None,
        },
        base=MockConfig(seed=7, default=AppConfig(name="Shop")),
    )
    assert config == MockConfig(
        seed=7,
        latency_ms=100.0,
        recipient_cap=20_000,
        tag_cap_status=400,
        legacy_reply=True,
        faults=(Fault(kind="503", probability=0.03), Fault(kind="reset_after", probability=0.03, lane="update_user")),
        default=AppConfig(
            name="Shop",
            plan="free",
            channels=("push", "sms"),
            unsubscribed=frozenset("ab"),
            create_notification=LaneLimit(rate=4000, foreign_schedule=((0, 0.2), (30, 0.8))),
        ),
    )


def test_a_single_fault_need_not_be_a_list() -> None:
    assert config_from({"--fault": "hang"}).faults == (Fault(kind="hang"),)


def test_no_options_are_the_defaults() -> None:
    assert config_from({}) == MockConfig()
    assert config_from({option.name: None for option in options()}) == MockConfig()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"--latency": 5.0}, "no option --latency"),
        ({"--latency-ms": -1.0}, "mock server: latency_ms: Expected `float` >= 0.0"),
        ({"--create-notification-schedule": "half"}, "second=share"),
        ({"--create-notification-schedule": "0=2"}, "schedule"),
        ({"--fault": ("often",)}, "fault 'often': there is no kind 'often'; there are 503, 503_text, "),
        ({"--fault": ("503,odds=1",)}, "'odds=1' is not name=value, where name is one of probability, lane, "),
        ({"--fault": ("503:often",)}, "fault '503:often': probability: Expected `float`"),
    ],
)
def test_options_that_make_no_sense_are_refused(values: dict[str, float | str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        config_from(values)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"latency_ms": -1}', r"latency_ms"),
        ('{"apps": {"a": {"plan": "gold"}}}', r"plan"),
        ('{"surprise": 1}', "surprise"),
        ("{", "mock server"),
    ],
)
def test_settings_in_json_are_checked(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        parse_config(text)


async def test_settings_in_code_are_checked_too() -> None:
    with pytest.raises(SettingsError, match="latency_ms"):
        await MockServer(MockConfig(latency_ms=-1)).__aenter__()
    async with MockServer() as server:
        with pytest.raises(SettingsError, match="seed"):
            server.configure(seed="seven")
        assert server.config == MockConfig()


def test_the_guide_names_every_option() -> None:
    guide = GUIDE.read_text()
    assert [option.name for option in options() if f"`{option.name}`" not in guide] == []


def test_the_guide_names_every_kind_of_fault_and_every_question() -> None:
    guide = GUIDE.read_text()
    kinds = ["503", "503_text", "502_html", "524", "reset_before", "hang", "outage_refuse", "garbage", "stall"]
    for word in [*kinds, "ledger", "messages", "deliveries", "users", "requests", "config", "reset", "enable"]:
        assert f"`{word}`" in guide, word


def told(option: Option) -> str:
    """A default as the guide writes it."""
    match option.default:
        case bool(value):
            return "on" if value else "off"
        case None:
            return "unset"
        case () | "":
            return "none"
        case int(value) | float(value):
            return f"{value:,.12g}"
        case str(value):
            return value
    return ", ".join(map(str, cast("tuple[str, ...]", option.default)))


def test_the_guide_tells_each_default_and_choice_as_it_is() -> None:
    rows = {
        name: (default, meaning)
        for line in GUIDE.read_text().splitlines()
        if (row := re.match(r"\| (`--.*?) \| (.*?) \| (.*?) \|$", line))
        for name, default, meaning in ((found, row[2], row[3]) for found in re.findall(r"`(--[\w-]+)`", row[1]))
    }
    for option in options():
        default, meaning = rows[option.name]
        if not option.name.endswith(("-counter", "-prefixes")):  # which the guide puts into words
            assert default == told(option), option.name
        assert all(f"`{choice}`" in meaning for choice in option.choices), option.name
