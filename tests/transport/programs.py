"""Servers that no one here wrote, started for a test and stopped after it: found on the machine, or installed.

Where a program is missing, root installs its Debian package; others see the tests skipped, and why.
"""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

INSTALL_TIMEOUT_S: Final = 180
START_TIMEOUT_S: Final = 20
_LOOK_AGAIN_S: Final = 0.02


def program(name: str, *, package: str, config: pytest.Config) -> str:
    """Find a program, or install its package where that is allowed; skips where neither works."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    if found := shutil.which(name, path=path):
        return found
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        pytest.skip(f"{name} is not installed, and only root on a Debian may install it: apt-get install {package}")
    report: pytest.TerminalReporter | None = config.pluginmanager.get_plugin("terminalreporter")
    if report is not None:
        report.write_line(f"{name} is not installed: installing it (apt-get install {package})")
    for arguments in (("update", "-qq"), ("install", "-y", "-qq", "--no-install-recommends", package)):
        done = run(apt, *arguments, timeout_s=INSTALL_TIMEOUT_S, DEBIAN_FRONTEND="noninteractive")
    if found := shutil.which(name, path=path):
        return found
    pytest.skip(f"{name} could not be installed: {done.stderr.strip()[-200:]}")


def run(*command: str, timeout_s: float = 20, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - nginx and apt-get, with arguments of our own
        command, capture_output=True, text=True, check=False, timeout=timeout_s, env=os.environ | environment
    )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(opened.getsockname()[1]) for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


@contextmanager
def started(
    command: Sequence[str], folder: Path, *, port: int, listener: socket.socket | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until the test is over; it listens, on ``port`` or on the ``listener`` that it was given."""
    descriptors = () if listener is None else (listener.fileno(),)
    if ender := shutil.which("setpriv"):  # on Linux: so that it does not outlive a run of the tests that is killed
        command = [ender, "--pdeathsig", "KILL", *command]
    with (folder / "output.log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, pass_fds=descriptors)  # noqa: S603 - the same
    if listener is not None:
        listener.close()  # so that nobody listens any more when the server has ended
    try:
        if listener is None:
            _await(process, port, folder)
        yield process
    finally:
        process.kill()
        process.wait(START_TIMEOUT_S)


def _await(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    """Return when somebody listens."""
    for _ in range(round(START_TIMEOUT_S / _LOOK_AGAIN_S)):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=START_TIMEOUT_S).close()
        except ConnectionRefusedError:
            try:
                process.wait(_LOOK_AGAIN_S)
            except subprocess.TimeoutExpired:
                continue
            break
        return
    pytest.fail(f"the server does not listen: {(folder / 'output.log').read_text()[-1000:]}")
