"""``sendengine mock`` over TLS; the rest of it is tested with the other commands."""

import asyncio
import shutil
import signal
import socket
import ssl as tls
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
from click.testing import CliRunner

from sendengine.cli.commands import cli
from sendengine.mockserver import MockServer
from tests.mockserver.h2_client import H2Client
from tests.mockserver.raw_client import APP
from tests.support.programs import SENDENGINE, ended, line_of, started, watched


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_a_certificate_is_made_on_request_and_http2_is_spoken() -> None:
    with started(*SENDENGINE, "mock", "--tls", "--json", stdout=subprocess.PIPE) as process:
        said = orjson.loads(await asyncio.to_thread(line_of, process))
        trust = tls.create_default_context(cafile=said["ca_file"])
        trust.set_alpn_protocols(["h2"])
        where = urlsplit(said["base_url"])
        client = H2Client(*await asyncio.open_connection(where.hostname, where.port, ssl=trust))
        await client.greeted()
        assert (await client.answer("GET", f"/apps/{APP}")).status == 200
        client.writer.close()
        process.send_signal(signal.SIGTERM)
        output, _ = await asyncio.to_thread(ended, process)
    assert orjson.loads(output)["http2_connections"] == 1
    assert not Path(said["ca_file"]).exists()  # noqa: ASYNC240  # it is gone, and nobody waits


def test_the_help_says_which_options_may_be_given_several_times() -> None:
    shown = " ".join(CliRunner().invoke(cli, ["mock", "--help"], prog_name="sendengine").output.split())
    assert "Ids that OneSignal has never heard of. May be given several times." in shown
    assert "403. May be given several times. [default: push, email, sms]" in shown
    assert "Seeds latencies and faults. [default: 0]" in shown


def test_a_key_is_of_no_use_without_its_certificate(tmp_path: Path) -> None:
    key = tmp_path / "server.key"
    key.touch()
    result = CliRunner().invoke(cli, ["mock", "--tls-key", str(key)], prog_name="sendengine")
    assert result.exit_code == 2
    assert "--tls-key: needs --tls-cert" in result.output


def test_a_certificate_that_is_none_is_refused(tmp_path: Path) -> None:
    certificate = tmp_path / "server.pem"
    certificate.write_text("nothing")
    result = CliRunner().invoke(cli, ["mock", "--tls-cert", str(certificate)], prog_name="sendengine")
    assert result.exit_code == 2
    assert "cannot be used for TLS" in result.output


def test_a_port_that_is_taken_is_told_in_one_line_by_either_command() -> None:
    module = (sys.executable, "-m", "sendengine.mockserver")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for command in ((*SENDENGINE, "mock"), module):
            with started(*command, "--port", str(port), stderr=subprocess.PIPE) as process:
                _, errors = ended(process)
            assert process.returncode == 2
            assert errors.removeprefix("sendengine: ") == (
                f"127.0.0.1:{port}: cannot listen: Address already in use; choose another --host or --port\n"
            )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--keyfile", "server.key"), "--keyfile: needs --certfile"),
        (("--port", "70000"), "argument --port: invalid port value: '70000'"),
        (("--port", "-1"), "argument --port: invalid port value: '-1'"),
        (("--port", "http"), "argument --port: invalid port value: 'http'"),
    ],
)
def test_the_module_names_what_makes_no_sense(arguments: tuple[str, str], said: str) -> None:
    with started(sys.executable, "-m", "sendengine.mockserver", *arguments, stderr=subprocess.PIPE) as process:
        _, errors = ended(process)
    assert process.returncode == 2
    assert errors.endswith(f"error: {said}\n")


def test_a_parent_that_dies_leaves_a_module_that_ends_without_a_word() -> None:
    pipe = subprocess.PIPE
    with started(sys.executable, "-m", "sendengine.mockserver", stdin=pipe, stdout=pipe, stderr=pipe) as process:
        line_of(process)
        for stream in (process.stdout, process.stdin):
            assert stream is not None
            stream.close()
        assert process.stderr is not None
        with watched(process):
            assert not process.stderr.read()
            assert process.wait() == 1


def test_a_host_that_is_an_address_of_ipv6_stands_in_brackets() -> None:
    assert MockServer(host="::1", port=8080).base_url == "http://[::1]:8080"
