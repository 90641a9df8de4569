"""nginx in a process of its own, where it is installed: as a sink, over HTTP/1.1 or HTTP/2, or in front of a server.

Method: one worker, a configuration and a folder of its own, nothing logged. It says how many requests it has answered
by its own status page, on a port of its own.
"""

import asyncio
import os
import shutil
import socket
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Self

from benchmarks.machine import cpu_s_of
from benchmarks.sink import BODIES
from benchmarks.workload import CERTIFICATE

_TRIES: Final = 200
_PAUSE_S: Final = 0.05
_CONFIGURATION: Final = """
{user}
worker_processes 1;
daemon off;
pid nginx.pid;
error_log error.log;
worker_rlimit_nofile {files};
events {{ worker_connections 8192; multi_accept on; }}
http {{
  access_log off;
  default_type application/json;
  client_body_temp_path body; proxy_temp_path proxy;
  fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  client_max_body_size 64m;
  keepalive_requests 100000000;
  http2_max_concurrent_streams 1024;
  map $request_method $accepted {{ default 200; PATCH 202; }}
  server {{
    listen 127.0.0.1:{port}{options};
    ssl_certificate {certificate};
    ssl_certificate_key {certificate};
    add_header CF-Ray 9a2b3c4d5e6f7081-FRA always;
    add_header CF-Cache-Status DYNAMIC always;
    add_header Cache-Control 'max-age=0, private, must-revalidate' always;
    add_header Strict-Transport-Security 'max-age=15552000; includeSubDomains' always;
    add_header Vary 'Accept, Origin' always;
    add_header X-Request-Id 5e4de491-0000-4000-8000-000000000002 always;
    location / {{
      {location}
    }}
  }}
  server {{
    listen 127.0.0.1:{status};
    location / {{ stub_status; }}
  }}
  {upstream}
}}
"""
_SINK: Final = """
      if ($request_method = PATCH) {{ return 202 '{patch}'; }}
      return 200 '{post}';"""
_PROXY: Final = """
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_request_buffering off;
      proxy_read_timeout 120s;
      proxy_pass http://behind;"""
_UPSTREAM: Final = "upstream behind {{ server {server}; keepalive 4096; keepalive_requests 100000000; }}"


def nginx_program() -> str | None:
    """Find nginx; None where it is not installed."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


class Nginx:
    """An instance for as long as ``async with`` lasts; ``behind`` is the server that it stands in front of, if any.

    Raises RuntimeError where it is not installed, or does not answer.
    """

    def __init__(self, *, is_tls: bool = False, is_h2: bool = False, behind: str = "") -> None:
        self._is_tls = is_tls
        self._is_h2 = is_h2
        self._behind = behind
        self._status = self._asked = 0
        self._folder = TemporaryDirectory(prefix="sendengine-bench-", ignore_cleanup_errors=True)
        self.base_url = ""

    async def __aenter__(self) -> Self:
        program = nginx_program()
        if program is None:
            raise RuntimeError("nginx is not installed")
        port, self._status = _free_ports(2)
        folder = Path(self._folder.name)
        (folder / "nginx.conf").write_text(self._configuration(port), encoding="ascii")
        self._child = await asyncio.create_subprocess_exec(
            program, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log", start_new_session=True
        )
        self.base_url = f"{'https' if self._is_tls else 'http'}://127.0.0.1:{port}"
        try:
            await self._until_up()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    @property
    def cpu_s(self) -> float:
        """The CPU that the worker has used so far."""
        return sum(cpu_s_of(worker) for worker in self._workers())

    async def requests(self) -> int:
        """How many requests it has answered so far, those for its status left out."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._status)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        self._asked += 1
        return int(page.partition("requests")[2].split()[2]) - self._asked

    def _configuration(self, port: int) -> str:
        sink = _SINK.format(post=BODIES["POST"][1], patch=BODIES["PATCH"][1])
        return _CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            files=20_000,
            port=port,
            status=self._status,
            options=(" ssl" if self._is_tls else "") + (" http2" if self._is_h2 else ""),
            certificate=CERTIFICATE,
            location=_PROXY if self._behind else sink,
            upstream=_UPSTREAM.format(server=self._behind.partition("://")[2]) if self._behind else "",
        )

    def _workers(self) -> list[int]:
        children = Path(f"/proc/{self._child.pid}/task/{self._child.pid}/children").read_text(encoding="ascii")
        return [int(each) for each in children.split()]

    async def _until_up(self) -> None:
        for _ in range(_TRIES):
            try:
                await self.requests()
            except OSError:
                await asyncio.sleep(_PAUSE_S)
            else:
                return
        raise RuntimeError("nginx does not answer; is its configuration understood?")

    async def _end(self) -> None:
        if self._child.returncode is None:
            self._child.terminate()
        await self._child.wait()
        self._folder.cleanup()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
