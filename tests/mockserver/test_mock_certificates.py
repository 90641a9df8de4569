"""Certificates: one that is made for the occasion, and those that cannot be used."""

import shutil
import ssl as tls
from pathlib import Path

import pytest

from sendengine.errors import SettingsError
from sendengine.mockserver import MockServer, self_made, server_context
from tests.mockserver.h2_client import opened
from tests.mockserver.raw_client import APP

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")


@needs_openssl
@pytest.mark.parametrize("host", ["127.0.0.1", "mock.internal", "10.1.2.3"])
async def test_a_certificate_is_made_for_the_host_and_this_machine_and_deleted(host: str) -> None:
    with self_made(host) as certificate:
        trust = tls.create_default_context(cafile=str(certificate))
        trust.set_alpn_protocols(["h2"])
        assert certificate.stat().st_mode & 0o777 == 0o600
        async with MockServer(ssl=server_context(certificate)) as server:
            for name in (host, "localhost", "127.0.0.1"):
                client = await opened(server, ssl=trust, name=name)
                await client.greeted()
                assert (await client.answer("GET", f"/apps/{APP}")).status == 200
                client.writer.close()
    assert not certificate.parent.exists()


def test_without_openssl_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SettingsError, match="openssl"), self_made("127.0.0.1"):
        pass


@needs_openssl
def test_what_openssl_complains_of_is_said() -> None:
    with pytest.raises(SettingsError, match="openssl made no certificate"), self_made("no, host"):
        pass


@pytest.mark.parametrize("content", [None, "this is no certificate"])
def test_a_certificate_that_cannot_be_used_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "server.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"server\.pem: cannot be used for TLS"):
        server_context(path)
