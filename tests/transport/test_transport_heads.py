"""Heads of requests, byte by byte."""

import pytest

from sendengine.errors import NotSentError, SettingsError
from sendengine.ports import WireRequest
from sendengine.transport.authority import ascii_host, host_header
from sendengine.transport.credentials import request_headers
from sendengine.transport.heads import Heads

AGENT = request_headers("k")["User-Agent"].encode()
REST = b"Authorization: Key k-1\r\nContent-Type: application/json\r\nAccept: application/json\r\n"
REST += b"Accept-Encoding: identity\r\nUser-Agent: " + AGENT + b"\r\n"


def test_a_request_with_a_body_has_its_length() -> None:
    heads = Heads("https://api.onesignal.com", "k-1")
    for method, path, body, length in [
        ("POST", "/notifications", b"{}", b"2"),
        ("POST", "/notifications", b"x" * 1_234_567, b"1234567"),
        ("PATCH", "/apps/a/users/by/external_id/a%2Fb%20%C3%A9", b"{}", b"2"),
        ("POST", "/notifications", b"", b"0"),
        ("DELETE", "/notifications", b"", b"0"),
    ]:
        expected = (
            f"{method} {path} HTTP/1.1\r\nHost: api.onesignal.com\r\n".encode()
            + REST
            + b"Content-Length: "
            + length
            + b"\r\n\r\n"
        )
        assert heads.head(WireRequest(method, path, body)) == expected


def test_a_get_has_neither_length_nor_type() -> None:
    head = Heads("https://api.onesignal.com", "k-1").head(WireRequest("GET", "/apps/a"))
    assert head.startswith(b"GET /apps/a HTTP/1.1\r\nHost: api.onesignal.com\r\nAuthorization: Key k-1\r\n")
    assert b"Content-" not in head
    assert head.endswith(AGENT + b"\r\n\r\n")
    assert b"\r\n\r\n" not in head[:-4]


@pytest.mark.parametrize(
    ("url", "host", "header", "line"),
    [
        ("https://api.onesignal.com", "api.onesignal.com", "api.onesignal.com", "POST /notifications "),
        ("https://api.onesignal.com:443", "api.onesignal.com", "api.onesignal.com", "POST /notifications "),
        ("https://api.onesignal.com:8443/", "api.onesignal.com", "api.onesignal.com:8443", "POST /notifications "),
        ("http://localhost:80/api/v1", "localhost", "localhost", "POST /api/v1/notifications "),
        ("http://localhost:443/api/v1/", "localhost", "localhost:443", "POST /api/v1/notifications "),
        ("http://[::1]:8080/a%20b", "::1", "[::1]:8080", "POST /a%20b/notifications "),
        ("https://bücher.example/é", "xn--bcher-kva.example", "xn--bcher-kva.example", "POST /%C3%A9/notifications "),
    ],
)
def test_the_base_url_gives_host_and_prefix(url: str, host: str, header: str, line: str) -> None:
    assert (ascii_host(url), host_header(url)) == (host, header)
    head = Heads(url, "k").head(WireRequest("POST", "/notifications", b"{}"))
    assert head.startswith(f"{line}HTTP/1.1\r\nHost: {header}\r\n".encode())


def test_a_host_that_cannot_be_one_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match="base_url"):
        Heads(f"https://{'é' * 100}.example", "k")


@pytest.mark.parametrize(
    "path", ["/a b", "/a\r\nX: y", "/a\nb", "/a\tb", "/\x00", "/é", "/a HTTP/1.1\r\nHost: other\r\n\r\n"]
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_path_that_is_not_encoded_cannot_break_out_of_its_line(path: str, method: str) -> None:
    with pytest.raises(NotSentError, match="percent-encoded"):
        Heads("http://127.0.0.1", "k-1").head(WireRequest(method, path, b"{}"))


def test_another_key_is_in_all_heads_from_then_on() -> None:
    heads = Heads("http://127.0.0.1", "first")
    heads.replace_key("second")
    for request in (
        WireRequest("POST", "/notifications", b"{}"),
        WireRequest("PATCH", "/u", b"{}"),
        WireRequest("GET", "/a"),
    ):
        head = heads.head(request)
        assert b"Authorization: Key second\r\n" in head
        assert b"first" not in head


def test_a_key_that_cannot_stand_in_a_header_changes_nothing() -> None:
    heads = Heads("http://127.0.0.1", "first")
    with pytest.raises(SettingsError):
        heads.replace_key("se\r\ncond")
    assert b"Key first\r\n" in heads.head(WireRequest("GET", "/a"))


def test_the_key_is_not_in_what_heads_show_of_themselves() -> None:
    assert "canary" not in repr(Heads("http://127.0.0.1", "canary"))
