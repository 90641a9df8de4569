"""Ids that ascend are each there once, and are known to be without a fingerprint."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.campaign.ascent import Ascent
from sendengine.campaign.fingerprints import Fingerprints
from sendengine.campaign.survey import survey_campaign
from tests.campaign.campaign_files import people


@pytest.mark.parametrize(
    ("parts", "does_ascend"),
    [
        ([], True),
        ([["u1"]], True),
        ([["u1", "u10", "u2"]], True),  # as texts
        ([["u1", "u2", "u10"]], True),  # as numbers
        ([["u1", "u2"], [], ["u10", "u11"]], True),
        ([["u1", "u10"], ["u2", "u3"]], True),
        ([["u1", "u10"], ["u2", "u11"]], False),  # as numbers at first, and as texts then
        ([["u1", "u2", "u2"]], False),
        ([["u1", "u2"], ["u2", "u3"]], False),
        ([["u2", "u1"]], False),
        ([["u2"], ["u1"]], False),
        ([["u2"], ["u1"], ["u3"]], False),  # and it stays so
        ([["b", "aa", "b", "ab"]], False),  # by length, only from first to last
        ([["aa", "b", "ab"]], False),
    ],
)
def test_ids_ascend_in_one_order_from_the_first_to_the_last(parts: list[list[str]], does_ascend: bool) -> None:
    ascent = Ascent()
    taken = [ascent.takes(part) for part in parts]
    assert all(taken) is does_ascend


@given(st.lists(st.lists(st.text("aB\u00e9\U0001f600", max_size=3), max_size=4), max_size=4))
def test_what_ascends_holds_nobody_twice(parts: list[list[str]]) -> None:
    ascent = Ascent()
    whole = [item for part in parts for item in part]
    taken = [ascent.takes(part) for part in parts]
    assert all(taken) == (whole in (sorted(set(whole)), sorted(set(whole), key=lambda item: (len(item), item))))


@pytest.mark.parametrize("again", [0, 7_000, 29_999])
def test_a_repeat_at_the_end_of_a_file_in_order_is_found(tmp_path: Path, again: int) -> None:
    ids = [f"customer-{number:08}" for number in range(30_000)]  # several blocks
    survey = survey_campaign(people(tmp_path, [*ids, ids[again], "customer-99999999"]))
    assert (survey.rows, survey.to_send, survey.duplicates) == (30_002, 30_001, 1)
    assert 30_000 in survey.selection.duplicates


def test_a_file_in_order_is_not_fingerprinted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Fingerprints, "add")
    ids = [f"user-{number}" for number in range(20_000)]
    survey = survey_campaign(people(tmp_path, ids))
    assert (survey.to_send, survey.duplicates) == (20_000, 0)
    with pytest.raises(AttributeError):
        survey_campaign(people(tmp_path, [*ids, "user-0"]))


def test_rows_that_are_left_out_break_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(Fingerprints, "add")
    survey = survey_campaign(people(tmp_path, ["u1", "null", "u2", "u3"]))
    assert (survey.to_send, survey.invalid) == (3, 1)
