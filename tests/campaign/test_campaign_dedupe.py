"""Each recipient once: a hash nominates, the strings decide, in a few bytes a recipient."""

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sendengine.campaign import fingerprints
from sendengine.campaign.fingerprints import Fingerprints, HashOf
from sendengine.campaign.rowsets import Counts, RowSet, Selection
from sendengine.campaign.survey import survey_campaign
from tests.campaign.campaign_files import campaign_of, csv_file, people


def only_length(item: str) -> int:
    return len(item)


def always_the_same(item: str) -> int:
    del item
    return 7


names = st.text("ab", min_size=1, max_size=3)


@settings(max_examples=60)
@given(
    ids=st.lists(names, max_size=40),
    optout=st.lists(names, max_size=5) | st.none(),
    hash_of=st.sampled_from([hash, only_length, always_the_same]),
    round_least=st.integers(1, 8),
)
def test_what_is_left_out_is_what_comes_again_and_what_is_excluded(
    tmp_path_factory: pytest.TempPathFactory,
    ids: list[str],
    optout: list[str] | None,
    hash_of: HashOf,
    round_least: int,
) -> None:
    folder = tmp_path_factory.getbasetemp()
    exclude = None if optout is None else csv_file(folder, "external_id", *optout, name="optout.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fingerprints, "_ROUND_LEAST", round_least)
        survey = survey_campaign(people(folder, ids, exclude=exclude), hash_of=hash_of)
    barred = set(optout or ())
    sent: list[int] = []
    seen: set[str] = set()
    for row, item in enumerate(ids):
        if item not in barred | seen:
            sent.append(row)
        seen.add(item)
    selection = survey.selection
    assert [row for row in range(len(ids)) if not selection.left_out(row, 1)] == sent
    assert survey.excluded == sum(item in barred for item in ids)
    assert survey.duplicates == len(ids) - len(sent) - survey.excluded
    assert survey.rows == survey.to_send + survey.duplicates + survey.excluded


def test_an_invalid_row_does_not_use_up_its_recipient(tmp_path: Path) -> None:
    path = csv_file(tmp_path, "external_id,first", "u1,", "u1,Ann", "u1,Ann")
    campaign = campaign_of(path, message={"template_id": "t"}, custom_data={"first": "first"})
    selection = survey_campaign(campaign).selection
    assert [selection.left_out(row, 1) for row in range(3)] == [1, 0, 1]


def test_without_dedupe_everybody_is_sent_to_and_repeats_are_remembered(tmp_path: Path) -> None:
    survey = survey_campaign(people(tmp_path, ["u1", "u2", "u1"], dedupe=False))
    assert (survey.to_send, survey.duplicates) == (3, 0)
    assert [row in survey.selection.repeats for row in range(3)] == [True, False, True]


@pytest.mark.parametrize("repeated", [0, 6_000])
def test_memory_stays_below_24_bytes_a_recipient(tmp_path: Path, repeated: int) -> None:
    count = 30_000
    campaign = people(tmp_path, (f"customer-{n if n < count - repeated else n - repeated:08}" for n in range(count)))
    tracemalloc.start()
    try:
        survey = survey_campaign(campaign)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert survey.duplicates == repeated
    a_chunk_of_rows_bytes = 1_000_000
    assert peak_bytes - a_chunk_of_rows_bytes < 24 * count


def test_fingerprints_nominate_what_occurs_twice_or_is_barred() -> None:
    marks, barred = Fingerprints(only_length), Fingerprints(only_length)
    marks.add(["a", "bb", "cc", "ddd"])
    barred.add(["xxx", "yyyy"])
    assert set().union(*marks.rounds(barred, is_repeat_wanted=True)) == {2, 3}
    marks, barred = Fingerprints(only_length), Fingerprints(only_length)
    marks.add(["a", "bb", "cc", "ddd"])
    barred.add(["xxx", "yyyy"])
    assert set().union(*marks.rounds(barred, is_repeat_wanted=False)) == {3}


@given(st.sets(st.integers(0, 60)), st.integers(0, 50), st.integers(1, 30))
def test_a_row_set_is_a_set(rows: set[int], first: int, size: int) -> None:
    kept = RowSet()
    for row in [*rows, *rows]:
        kept.add(row)
    assert len(kept) == len(rows)
    assert [row in kept for row in range(80)] == [row in rows for row in range(80)]
    assert kept.between(first, size) == sum(1 << (row - first) for row in rows if first <= row < first + size)
    again = RowSet.of(kept.bits)
    assert (len(again), again.between(0, 80)) == (len(kept), kept.between(0, 80))


def test_a_selection_says_what_is_left_out_and_why() -> None:
    selection = Selection()
    assert selection.kept(0, 8) is None
    for row_set, row in ((selection.invalid, 1), (selection.duplicates, 2), (selection.excluded, 9)):
        row_set.add(row)
    assert selection.kept(0, 4) == bytes([1, 0, 0, 1])
    assert selection.counts(0, 9) == Counts(invalid=1, duplicates=1)
    assert selection.counts(2, 8) == Counts(duplicates=1, excluded=1)
