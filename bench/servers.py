"""The processes of a run: the mock provider, nginx and the gateway. Starts each on its CPU, waits until it answers, stops it.

The gateway is started as its users start it: `python -m aigate serve`, a settings file, keys made over HTTP.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Self

from bench.machine import BINARIES, HERE, BenchError, command_line, environment, process_tree

MEASURED_CPU, LOAD_CPU = sorted(os.sched_getaffinity(0))[:2]
ROOT_KEY = "sk-aig-test"
KEY_COUNT = 10_000
KEY_CONNECTIONS = 16
START_S, DRAIN_S, SHIP_S = 60.0, 60.0, 120.0  # far over what each may take: past them something is broken

NGINX = """
worker_processes 1;
worker_rlimit_nofile 65536;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 16384; }}
http {{
    access_log {folder}/access.log combined;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    keepalive_requests 100000000;
    map_hash_max_size 65536;
    map_hash_bucket_size 128;
    map $http_authorization $is_key {{ default 0; include {folder}/keys.conf; }}
    upstream mock {{ server 127.0.0.1:{mock_port}; keepalive 2048; keepalive_requests 100000000; }}
    server {{
        listen 127.0.0.1:{port} backlog=4096{tls};
        location / {{
            if ($is_key = 0) {{ return 401; }}
            proxy_pass http://mock;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Authorization "Bearer sk-upstream";
            proxy_buffering off;
        }}
    }}
}}
"""
NGINX_TLS = " ssl;\n        ssl_certificate {folder}/certificate.pem;\n        ssl_certificate_key {folder}/private.pem"

SETTINGS = """
[providers.mock]
dialect = "openai-chat"
base_url = "{base_url}"
api_key = "sk-upstream"
models = ["*"]

[models."mock/gpt"]
input_usd_per_mtok = 0.15
output_usd_per_mtok = 0.60
cached_input_usd_per_mtok = 0.075
context_window = 128000
max_output_tokens = 16384
"""


class Server:
    """A process tree on one CPU, with a TCP port. What it writes goes to `log`. It ends with its `with` block."""

    def __init__(self, command: Sequence[str], *, cpu: int, port: int, log: Path):
        self.port = port
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=HERE.parent,
                env=environment() | {"AIGATE_ADMIN_KEY": ROOT_KEY},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=partial(os.sched_setaffinity, 0, {cpu}),
            )
        self._log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(DRAIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise BenchError(f"{self.process.args} had to be killed after {DRAIN_S:.0f} s") from None

    @property
    def pid(self) -> int:
        return self.process.pid

    def tree(self) -> list[int]:
        return process_tree(self.pid)

    def wait_for(self, answers: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if answers():
                    return
            except OSError:
                pass  # it does not listen yet
            time.sleep(0.005)
        self.process.terminate()
        raise BenchError(f"{self.process.args} does not serve; it wrote:\n{self.log_end()}")

    def log_end(self) -> str:
        return self._log.read_text(errors="replace")[-2000:]


class Mock(Server):
    """The provider. Its counters say how many requests and stream events really reached it."""

    def __init__(self, folder: Path, chunks: int = 100):
        port = free_port()
        super().__init__([str(BINARIES / "mock"), str(port), str(chunks)], cpu=LOAD_CPU, port=port, log=folder / "mock.log")
        self.wait_for(lambda: bool(self.stats()))

    def pace(self, delay_ms: int, group: int) -> None:
        request(self.port, "GET", f"/mode/{delay_ms}/{group}")

    def stats(self) -> dict[str, int]:
        return json.loads(request(self.port, "GET", "/stats")[1])


class Nginx(Server):
    """A reverse proxy that looks the client's key up and puts the provider's in its place. `tls_folder` has the certificate, if any."""

    def __init__(self, folder: Path, *, mock_port: int, keys: Sequence[str] = (), cpu: int = MEASURED_CPU, is_tls: bool = False):
        port = free_port()
        accepted = "".join(f'"Bearer {key}" 1;\n' for key in (*keys, "sk-upstream"))
        (folder / "keys.conf").write_text(accepted)
        tls = NGINX_TLS.format(folder=folder) if is_tls else ""
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, mock_port=mock_port, port=port, tls=tls))
        super().__init__(["nginx", "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], cpu=cpu, port=port, log=folder / "nginx.log")
        self.wait_for(lambda: listens(port))


class Gateway(Server):
    """The gateway on its data directory. `start_s`: from its start to its first 200 for a model call."""

    def __init__(self, folder: Path, base_url: str, more_settings: str = ""):
        settings, self._data_dir, port = folder / "aigate.toml", folder / "data", free_port()
        settings.write_text(SETTINGS.format(base_url=base_url) + more_settings)
        started_at = time.monotonic()
        command = [sys.executable, "-m", "aigate", "serve", "--config", str(settings), "--data-dir", str(self._data_dir), "--port", str(port)]
        super().__init__(command, cpu=MEASURED_CPU, port=port, log=folder / "gateway.log")
        self.wait_for(lambda: self._call() == 200)
        self.start_s = time.monotonic() - started_at

    def workers(self) -> list[int]:
        return [pid for pid in self.tree() if "aigate.worker" in command_line(pid)]

    def create_keys(self, count: int) -> list[str]:
        with ThreadPoolExecutor(KEY_CONNECTIONS) as pool:
            shares = pool.map(self._create_keys, [count // KEY_CONNECTIONS] * KEY_CONNECTIONS)
            try:
                return [key for share in shares for key in share]
            except (OSError, http.client.HTTPException) as error:
                raise BenchError(f"POST /v1/keys failed: {error!r}; the gateway wrote:\n{self.log_end()}") from error

    def _create_keys(self, count: int) -> list[str]:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=START_S)) as connection:
            return [self._create_key(connection) for _ in range(count)]

    def _create_key(self, connection: http.client.HTTPConnection) -> str:
        connection.request("POST", "/v1/keys", b'{"name": "bench"}', _headers())
        reply = connection.getresponse()
        body = reply.read()
        if reply.status != 201:
            raise BenchError(f"POST /v1/keys answered {reply.status}: {body[:500]!r}")
        return json.loads(body)["key"]

    def rows(self) -> tuple[int, int]:
        """(calls, attempts) in the database, as its running sums have them: they change in the transaction that adds the rows."""
        with closing(sqlite3.connect(f"file:{self._data_dir}/gate.sqlite?mode=ro", uri=True, timeout=30)) as database:
            calls, attempts = database.execute("SELECT sum(requests), sum(attempts) FROM usage_totals").fetchone()
        return calls or 0, attempts or 0

    def counted_rows(self) -> tuple[int, int]:
        """The same, counted one by one."""
        with closing(sqlite3.connect(f"file:{self._data_dir}/gate.sqlite?mode=ro", uri=True, timeout=30)) as database:
            return tuple(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("calls", "attempts"))

    def wait_for_rows(self, expected: tuple[int, int]) -> None:
        deadline = time.monotonic() + SHIP_S
        while (rows := self.rows()) != expected:
            if time.monotonic() > deadline or any(have > want for have, want in zip(rows, expected, strict=True)):
                raise BenchError(f"the ledger has (calls, attempts) {rows}, but {expected} were made")
            time.sleep(0.02)

    def _call(self) -> int:
        return request(self.port, "POST", "/v1/chat/completions", (HERE / "request.json").read_bytes())[0]


def request(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)) as connection:
        connection.request(method, path, body, _headers())
        reply = connection.getresponse()
        return reply.status, reply.read()


def listens(port: int) -> bool:
    with closing(socket.create_connection(("127.0.0.1", port), timeout=START_S)):
        return True


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {ROOT_KEY}", "Content-Type": "application/json"}
