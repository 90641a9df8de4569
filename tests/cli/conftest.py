"""A mock server in a process of its own, and a folder with a campaign and settings for it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.sending import CANARY, behave, campaign, write_settings
from tests.support.programs import mock_server


@pytest.fixture(scope="session")
def any_mock() -> Iterator[str]:
    """One mock server for all tests of a process, each of which says with `behave` what it is like."""
    with mock_server() as base_url:
        yield base_url


@pytest.fixture
def sending_mock(any_mock: str) -> str:
    """A mock server that takes one key, has an unsubscribed user and one that spoils a request."""
    behave(any_mock, default={"api_key": CANARY, "unsubscribed": ["gone"], "poisoned": ["poison"]})
    return any_mock


@pytest.fixture
def sending_folder(sending_mock: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with five recipients."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHOP_KEY", CANARY)
    write_settings(sending_mock)
    campaign("u-1", "u-2", "u-3", "u-4", "u-5")
    return tmp_path
