"""The example file has every key, with its default and a comment."""

import tomllib
from pathlib import Path

from sendengine.settings import effective
from tests.settings.files import APP_ID

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"
NO_DEFAULT = {"api_key_file", "api_key_command", "create_notification", "update_user", "ca_file", "proxy"}


def test_the_example_file_holds_the_defaults() -> None:
    example = {each.key: each.value for each in effective(EXAMPLE, environment={})}
    defaults = {
        each.key: each.value
        for each in effective(
            None,
            environment={},
            overrides={
                "apps.shop.app_id": APP_ID,
                "apps.shop.api_key": "$ONESIGNAL_API_KEY",
                "apps.shop.plan": "paid",
                "journal.durability": "durable",  # the table need not be there; the example has it, with its defaults
            },
        )
    }
    assert example.pop("state_dir") == EXAMPLE.parent / str(defaults.pop("state_dir"))
    assert example == defaults


def test_the_example_file_names_every_key_each_with_a_comment_before_it() -> None:
    lines = EXAMPLE.read_text().splitlines()
    named = set()
    for above, line in zip(["", *lines], lines, strict=False):
        key = line.removeprefix("# ").partition(" = ")[0]
        if key.isidentifier() and " = " in line:
            named.add(key)
            assert above.startswith(("#", "[apps.shop.ceilings]")), f"{key} has no comment"
            assert line.startswith("# ") == (key in NO_DEFAULT), f"{key} is a comment exactly where it has no default"
    assert named == {each.key.rpartition(".")[2] for each in effective(EXAMPLE, environment={})}


def test_the_keys_without_a_default_may_be_uncommented() -> None:
    text = EXAMPLE.read_text()
    for key in NO_DEFAULT - {"api_key_file", "api_key_command"}:
        text = text.replace(f"# {key} = ", f"{key} = ")
    document = tomllib.loads(text)
    assert document["apps"]["shop"]["ceilings"] == {"create_notification": 6000, "update_user": 1000}
    assert document["transport"]["proxy"] == "http://proxy.example:3128"
