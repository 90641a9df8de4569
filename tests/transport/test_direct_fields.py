"""Headers that are found by searching are those that llhttp reads."""

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sendengine.core.replies import retry_after_s
from sendengine.transport.direct.http1.fields import Fields

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCF-RAY: 8a-AMS\r\nretry-after:7\r\nEmpty:\r\n"
    b"X-Long:   two words \t\r\nTwice: first\r\nTWICE: last\r\nLatin: caf\xe9\r\nX-Content-Type: no"
)


def test_a_header_is_found_by_its_lower_case_name() -> None:
    fields = Fields(HEAD)
    for name, value in [
        ("content-type", "application/json"),
        ("cf-ray", "8a-AMS"),
        ("retry-after", "7"),
        ("empty", ""),
        ("x-long", "two words"),
        ("twice", "last"),
        ("x-content-type", "no"),
    ]:
        assert fields[name] == fields.get(name) == fields.get(name, "default") == value
        assert name in fields
    assert fields["latin"].encode("utf-8", "surrogateescape") == b"caf\xe9"


@pytest.mark.parametrize("name", ["content", "type", "ray", "http/1.1 200 ok", "8a-ams", "", "x-long:", "no", "ok"])
def test_a_part_of_a_name_or_of_a_value_is_no_header(name: str) -> None:
    fields = Fields(HEAD)
    assert name not in fields
    assert fields.get(name) is None
    assert fields.get(name, "default") == "default"
    with pytest.raises(KeyError):
        fields[name]


def test_they_are_a_mapping_with_each_name_once() -> None:
    fields = Fields(HEAD)
    assert list(fields) == [
        "content-type", "cf-ray", "retry-after", "empty", "x-long", "twice", "latin", "x-content-type",
    ]  # fmt: skip
    assert len(fields) == 8
    assert dict(fields) == {name: fields[name] for name in fields}
    assert fields == dict(fields)
    assert retry_after_s(fields) == 7
    assert "'cf-ray': '8a-AMS'" in repr(fields)


def test_a_reply_without_headers_has_none() -> None:
    fields = Fields(b"HTTP/1.1 204 No Content")
    assert (dict(fields), len(fields), fields.is_encoded) == ({}, 0, False)


@pytest.mark.parametrize("name", [b"Content-Encoding", b"content-encoding", b"CONTENT-ENCODING"])
def test_an_encoding_is_noticed_in_any_case(name: bytes) -> None:
    assert Fields(b"HTTP/1.1 200 OK\r\n" + name + b": gzip").is_encoded
    assert not Fields(b"HTTP/1.1 200 OK\r\nX-" + name + b": gzip").is_encoded


class Listener:
    """What llhttp says that the headers are."""

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self.is_read = False

    def on_header(self, name: bytes, value: bytes) -> None:
        text = value.strip(b" \t").decode("utf-8", "surrogateescape")
        self.headers[name.decode().lower()] = text

    def on_headers_complete(self) -> None:
        self.is_read = True


names = st.text("abcXYZ-0_!", min_size=1, max_size=6).map(str.encode)
values = st.binary(max_size=12) | st.sampled_from(
    [b"a: b", b"\nx: y", b" \r\n folded", b"\t", b"content-encoding: gzip"]
)


@given(st.lists(st.tuples(names, values), max_size=8))
def test_they_are_those_that_llhttp_reads_wherever_it_reads_any(lines: list[tuple[bytes, bytes]]) -> None:
    head = b"\r\n".join([b"HTTP/1.1 200 OK", *[name + b": " + value for name, value in lines]])
    listener = Listener()
    try:
        httptools.HttpResponseParser(listener).feed_data(head + b"\r\n\r\n")
    except httptools.HttpParserError:
        return
    if listener.is_read and b"\r\n\r\n" not in head:
        assert dict(Fields(head)) == listener.headers
