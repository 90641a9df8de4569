"""``validate`` and ``send --dry-run`` look, and send nothing."""

from pathlib import Path

import orjson
import pytest

from tests.cli.sending import campaign, jobs, requests_of, run, runs

pytestmark = pytest.mark.usefixtures("sending_folder")


def test_validate_counts_what_is_to_be_sent() -> None:
    campaign("u-1", "u-2", "u-1")
    result = run("validate", "campaign.toml")
    assert (result.exit_code, result.stdout) == (
        0,
        "black-friday: 2 recipients to send of 3 rows\n  left out: 1 duplicates\n  shop, push: 2 recipients\n",
    )


def test_validate_lists_faults_with_line_field_and_reason() -> None:
    campaign("u-1", "null", "u-2")
    result = run("validate", "campaign.toml")
    assert result.exit_code == 2
    assert "  line 3: external_id: " in result.stderr
    found = orjson.loads(run("validate", "campaign.toml", "--json").stdout)
    assert (found["rows"], found["to_send"], found["left_out"]["invalid"]) == (3, 2, 1)
    assert found["faults"][0]["line"] == 3


def test_validate_says_why_rows_are_excluded_that_no_list_excludes() -> None:
    Path("levels.toml").write_text(
        '[campaign]\nname = "levels"\nkind = "update_user"\n'
        '[campaign.recipients]\nfile = "users.csv"\ncolumn = "external_id"\ntarget = "external_id"\n'
        '[campaign.tags]\nlevel = "level"\n'
    )
    Path("users.csv").write_text("external_id,level\nu-1,3\nu-2,\nu-3,\n")
    result = run("validate", "levels.toml")
    assert result.exit_code == 0
    assert "  left out: 2 excluded (2 without a value to set)\n" in result.stdout


def test_validate_shows_twenty_faults_and_how_many_more() -> None:
    campaign(*["null"] * 25)
    lines = run("validate", "campaign.toml").stderr.splitlines()
    assert len(lines) == 21
    assert lines[-1] == "  and 5 more"


def test_validate_reads_standard_input() -> None:
    result = run("validate", "-", typed=jobs(3))
    assert (result.exit_code, result.stdout) == (
        0,
        "standard-input: 3 jobs to send of 3 rows\n  shop, push: 3 recipients\n",
    )
    assert not runs()


def test_an_input_that_is_not_there_is_an_error() -> None:
    for command in ("validate", "send"):
        result = run(command, "none.toml")
        assert result.exit_code == 2
        assert result.stderr == "sendengine: none.toml: there is no such file\n"


def test_a_dry_run_shows_requests_numbers_and_limit_and_sends_nothing(sending_mock: str) -> None:
    campaign(*(f"u-{n}" for n in range(4500)))
    result = run("send", "campaign.toml", "--dry-run")
    assert result.exit_code == 0
    assert "black-friday: 4,500 recipients to send of 4,500 rows" in result.stdout
    assert "shop/create_notification: 3 requests, under 0.1 s at its ceiling of 6,000/s" in result.stdout
    # the mock server has 1,000,000 subscribed users: 10 times as many, of which 0.7
    assert "application limit of shop: 4,500 of 7,000,000 deliveries in 15 minutes (0.1%)" in result.stdout
    assert result.stdout.count("POST /notifications") == 3
    assert result.stdout.count("… and 1,997 more recipients") == 2
    assert result.stdout.count("… and 497 more recipients") == 1
    assert requests_of(sending_mock, "create_notification") == 0
    assert not runs()


def test_a_dry_run_for_programs_has_it_all(sending_mock: str) -> None:
    Path("jobs.jsonl").write_bytes(
        jobs(3) + b'{"kind":"update_user","user":{"external_id":"a/b"},"tags":{"level":5,"old":null}}\n'
    )
    found = orjson.loads(run("send", "jobs.jsonl", "--dry-run", "--json").stdout)
    assert found["requests"] == {"shop/create_notification": 3, "shop/update_user": 1}
    assert found["application_limit"] == [{"app": "shop", "deliveries": 3, "most": 7_000_000}]
    assert [sample["method"] for sample in found["samples"]] == ["POST", "POST", "POST"]
    assert found["samples"][0]["body"]["include_aliases"] == {"external_id": ["u-0"]}
    assert requests_of(sending_mock, "update_user") == 0


def test_a_dry_run_works_without_a_key_and_says_that_the_limit_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_KEY")
    result = run("send", "campaign.toml", "--dry-run")
    assert result.exit_code == 0
    assert "application limit of shop: not known" in result.stdout
