"""TLS for the server: a certificate that is there, or one that is made for the occasion.

Source: `openssl-req(1)`. Python makes no certificates, so the program ``openssl`` does.
"""

import ipaddress
import shutil
import ssl as tls
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from sendengine.errors import SettingsError

_DAYS: Final = 7
_PROGRAM: Final = "openssl"


def server_context(certfile: Path, keyfile: Path | None = None) -> tls.SSLContext:
    """Return what a server needs to speak TLS with a certificate. Raises SettingsError where it cannot be read."""
    context = tls.create_default_context(tls.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, tls.SSLError) as error:
        raise SettingsError(f"{certfile}: cannot be used for TLS: {error.strerror or error}") from None
    return context


@contextmanager
def self_made(host: str) -> Iterator[Path]:
    """Make a certificate with its key, in one file that is deleted at the end; it is its own authority.

    It is for ``host``, and for this machine's names on the loopback. Raises SettingsError where there is no openssl.
    """
    program = shutil.which(_PROGRAM)
    if program is None:
        raise SettingsError("a self-made certificate needs the program openssl; give a certificate of your own")
    with TemporaryDirectory(prefix="sendengine-mock-") as folder:
        certificate, key = Path(folder) / "certificate.pem", Path(folder) / "key.pem"
        made = subprocess.run(  # noqa: S603  # our own words, and no shell
            [
                program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-days", f"{_DAYS}", "-subj", "/CN=sendengine mock", "-addext", f"subjectAltName={_names(host)}",
                "-keyout", f"{key}", "-out", f"{certificate}",
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if made.returncode:
            raise SettingsError(f"openssl made no certificate: {made.stderr.strip()}")
        certificate.write_text(certificate.read_text() + key.read_text())
        certificate.chmod(0o600)
        key.unlink()
        yield certificate


def _names(host: str) -> str:
    names = ["DNS:localhost", "IP:127.0.0.1", "IP:::1"]
    try:
        own = f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        own = f"DNS:{host}"
    return ",".join(names if own in names else [*names, own])
