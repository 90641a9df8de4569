"""Records as bytes: what is damaged is told apart from what is whole."""

from hypothesis import given
from hypothesis import strategies as st

from sendengine.journal.frames import HEADER_BYTES, DamagedRecord, Record, framed, labelled, unframed, unlabelled

records = st.builds(Record, st.integers(0, 2**63 - 1), st.integers(0, 255), st.binary(max_size=60))


@given(st.lists(records))
def test_records_come_back_as_they_were(several: list[Record]) -> None:
    data = b"".join(framed(each.id, each.kind, each.payload) for each in several)
    assert list(unframed(data)) == several


def test_a_record_of_three_bytes_is_twenty_long() -> None:
    data = framed(258, 7, b"abc")
    assert len(data) == HEADER_BYTES + 3 == 20
    assert data[4:] == bytes.fromhex("00000003 0000000000000102 07") + b"abc"


@given(st.integers(1, 100))
def test_zeros_are_no_record(count: int) -> None:
    assert all(isinstance(each, DamagedRecord) for each in unframed(bytes(count)))


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_a_flipped_bit_makes_no_other_record(several: list[Record], data: st.DataObject) -> None:
    whole = b"".join(framed(each.id, each.kind, each.payload) for each in several)
    torn = bytearray(whole)
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    torn[bit // 8] ^= 1 << bit % 8
    found = list(unframed(bytes(torn)))
    assert any(isinstance(each, DamagedRecord) for each in found)
    assert all(each in several for each in found if isinstance(each, Record))


@given(st.lists(records, min_size=1, max_size=4), st.data())
def test_what_was_torn_off_costs_no_record_before_it(several: list[Record], data: st.DataObject) -> None:
    frames = [framed(each.id, each.kind, each.payload) for each in several]
    cut = data.draw(st.integers(0, sum(map(len, frames)) - 1))
    found = list(unframed(b"".join(frames)[:cut]))
    whole = [each for each in found if isinstance(each, Record)]
    assert whole == several[: len(whole)]
    assert sum(len(frame) for frame in frames[: len(whole) + 1]) > cut


@given(st.text(), st.text(), st.binary())
def test_a_payload_belongs_to_its_label(label: str, other: str, payload: bytes) -> None:
    data = labelled(label, payload)
    assert unlabelled(label, data) == payload
    assert label == other or unlabelled(other, data) is None
    assert unlabelled(label, data[:-1]) is None
