"""Lines behind what a journal knows: what they say was accepted, and whether the journal knows it."""

from pathlib import Path

import pytest

from sendengine import UpdateUser, external_id
from sendengine.campaign import unbooked as module
from sendengine.campaign.unbooked import Unbooked, is_known, unbooked
from sendengine.journal.frames import Record
from sendengine.journal.records import JOB, REQUEST, JobEntry, RequestEntry, write_job, write_request
from tests.support.stores import KEY, a_job, a_seal

FIRST = b'{"key": "a", "rows": [[1, 2]], "outcome": "accepted"}\n'
LINES = (
    FIRST,
    b'{"key": "b", "rows": [[3, 4], [9, 9]], "outcome": "accepted"}\n',
    b'{"key": null, "rows": [[5, 5]], "outcome": "accepted"}\n',
    b'{"key": "c", "rows": [[6, 6]], "outcome": "rejected"}\n',
    b'{"key": "d", "rows": [[7, 7]], "outc',
)


def test_what_was_accepted_behind_the_books_is_read_and_torn_lines_are_not(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    assert not unbooked(path, size_bytes=0)
    path.write_bytes(b"".join(LINES))
    assert unbooked(path, size_bytes=len(FIRST)) == Unbooked(frozenset({"b"}), keyless_rows=frozenset({4}), end=9)
    assert not unbooked(path, size_bytes=path.stat().st_size + 7)


def test_of_a_long_file_the_end_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"".join(LINES))
    monkeypatch.setattr(module, "_MOST_BYTES", len(b"".join(LINES[2:])) + 5)
    assert unbooked(path, size_bytes=0) == Unbooked(keyless_rows=frozenset({4}), end=5)


def test_what_is_known_stands_in_a_request_in_a_job_that_goes_alone_or_in_a_change() -> None:
    change = UpdateUser(external_id("u"), tags={"a": 1})
    records = [
        Record(1, JOB, write_job(JobEntry(a_job(1), "shop", 0.0, 0, request_key="alone"))),
        Record(2, JOB, write_job(JobEntry(change, "shop", 0.0, 4))),
        Record(3, REQUEST, write_request(RequestEntry(a_seal((1, ("u1",))), 0.0))),
        Record(4, JOB, b"damaged"),
    ]
    assert is_known(Unbooked(frozenset({"alone", KEY}), keyless_rows=frozenset({4}), end=5), records)
    assert not is_known(Unbooked(frozenset({"another"})), records)
    assert not is_known(Unbooked(keyless_rows=frozenset({5})), records)
    assert is_known(Unbooked(end=78), records)
