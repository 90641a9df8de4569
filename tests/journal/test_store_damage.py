"""Torn and flipped bytes: a store opens to a state that it had, or names what is damaged; never a wrong job."""

import logging

import pytest

from tests.journal.store_damage import Template, templates, tried


@pytest.fixture(scope="module")
def made() -> list[Template]:
    return templates()


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_store_gives_back_nothing_that_was_not_there(
    made: list[Template], seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    whole, named, refused = tried(300, seed=seed, made=made)
    assert whole + named + refused == 300
    assert min(whole, named) > 30
    assert refused < 30
