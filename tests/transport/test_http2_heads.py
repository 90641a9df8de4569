"""A request's head as an HPACK block: what a server reads in it, and what may never be indexed."""

import pytest
from hpack import Decoder
from hpack.struct import NeverIndexedHeaderTuple
from hypothesis import given
from hypothesis import strategies as st

from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import WireRequest
from sendengine.transport.direct.http2.heads import RequestBlocks, field
from sendengine.transport.direct.http2.literals import integer, packed, rest_of_integer, string_at, text

KEY = "os_v2_app_canary"


def read(block: bytes) -> list[tuple[str, str]]:
    """Read a block as a server with a table of no bytes does, so that nothing in it can rest on a table."""
    decoder = Decoder()
    decoder.header_table_size = 0
    return [(str(name), str(value)) for name, value in decoder.decode(block)]


@pytest.mark.parametrize(
    ("request_", "begins", "ends"),
    [
        (
            WireRequest("POST", "/notifications", b"x" * 1234),
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", "push.example:8443"),
                (":path", "/v1/notifications"),
            ],
            [("content-length", "1234")],
        ),
        (
            WireRequest("PATCH", "/apps/a/users/by/external_id/%C3%A4", b"{}"),
            [
                (":method", "PATCH"),
                (":scheme", "https"),
                (":authority", "push.example:8443"),
                (":path", "/v1/apps/a/users/by/external_id/%C3%A4"),
            ],
            [("content-length", "2")],
        ),
        (
            WireRequest("DELETE", "/apps/a"),
            [(":method", "DELETE"), (":scheme", "https"), (":authority", "push.example:8443"), (":path", "/v1/apps/a")],
            [("content-length", "0")],
        ),
    ],
)
def test_a_server_reads_what_is_meant(
    request_: WireRequest, begins: list[tuple[str, str]], ends: list[tuple[str, str]]
) -> None:
    fields = read(RequestBlocks("https://push.example:8443/v1/", KEY).block(request_))
    assert fields[:4] == begins
    assert fields[-1:] == ends
    assert dict(fields)["authorization"] == f"Key {KEY}"
    assert dict(fields)["content-type"] == "application/json"
    assert all(name == name.lower() and name not in {"host", "connection"} for name, _ in fields)


def test_a_get_has_no_body_and_says_nothing_of_one() -> None:
    fields = dict(read(RequestBlocks("http://127.0.0.1:80", KEY).block(WireRequest("GET", "/apps/a"))))
    assert (fields[":method"], fields[":scheme"], fields[":authority"]) == ("GET", "http", "127.0.0.1")
    assert not {"content-type", "content-length"} & set(fields)


def test_nobody_on_the_way_may_index_the_key() -> None:
    decoder = Decoder()
    (found,) = (
        entry
        for entry in decoder.decode(RequestBlocks("https://push.example", KEY).block(WireRequest("GET", "/")))
        if str(entry[0]) == "authorization"
    )
    assert isinstance(found, NeverIndexedHeaderTuple)
    assert len(decoder.header_table.dynamic_entries) == 0, "and nothing else is indexed either"


def test_another_key_is_used_from_the_next_head_on_also_where_the_head_was_rendered_before() -> None:
    blocks = RequestBlocks("https://push.example", KEY)
    request = WireRequest("POST", "/notifications", b"{}")
    before = blocks.block(request)
    assert blocks.block(request) is before, "rendered once"
    blocks.replace_key("another")
    assert dict(read(blocks.block(request)))["authorization"] == "Key another"


def test_lengths_of_any_number_are_kept_for_a_while() -> None:
    blocks = RequestBlocks("https://push.example", KEY)
    for size in (*range(5000), 0, 4999, 123_456_789):
        block = blocks.block(WireRequest("POST", "/notifications", b"x" * min(size, 5000)))
        assert block.endswith(b"%d" % min(size, 5000))


@pytest.mark.parametrize("path", ["/a b", "/ä", "/a\r\n", "/\x00"])
def test_a_path_that_cannot_stand_in_a_head_is_refused(path: str) -> None:
    with pytest.raises(NotSentError, match="percent-encoded"):
        RequestBlocks("https://push.example", KEY).block(WireRequest("PATCH", path, b"{}"))


def test_a_key_that_cannot_stand_in_a_head_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        RequestBlocks("https://push.example", "canary\n")
    assert "canary" not in str(caught.value)


# Integers and strings


@pytest.mark.parametrize(
    ("value", "prefix", "rendered"),
    [(10, 5, "0a"), (1337, 5, "1f9a0a"), (42, 8, "2a"), (31, 5, "1f00"), (127, 7, "7f00"), (128, 7, "7f01")],
)
def test_integers_are_those_of_rfc_7541(value: int, prefix: int, rendered: str) -> None:
    assert integer(value, prefix=prefix).hex() == rendered
    if len(rendered) > 2:
        most = (1 << prefix) - 1
        assert rest_of_integer(bytes.fromhex(rendered), 1, most) == (value, len(rendered) // 2)


@pytest.mark.parametrize("broken", [b"\x7f\xff\xff\xff\xff\xff\x01", b"\x7f\x80\x80\x80\x80\x80\x80\x80\x01"])
def test_an_integer_that_is_too_large_ends_the_reading(broken: bytes) -> None:
    with pytest.raises(ValueError, match="too large"):
        string_at(broken, 0)


@given(st.binary(max_size=400), st.binary(max_size=5))
def test_a_string_is_read_as_it_was_rendered_either_way(value: bytes, before: bytes) -> None:
    for rendered in (text(value), packed(value)):
        assert string_at(before + rendered + b"\x00", len(before)) == (value, len(before) + len(rendered))


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300))
def test_a_field_is_read_as_it_was_meant(value: str) -> None:
    assert read(field("user-agent", value)) == [("user-agent", value)]
    assert read(field("x-canary", value)) == [("x-canary", value)]
