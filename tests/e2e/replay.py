"""A local HTTP server that stands for every recorded provider, and the gateway in front of it.

What it answers next is told beforehand (`answer`), so nothing of a request or a model name need be changed to find its recording.
"""

from __future__ import annotations

import http.client
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.conftest import Gateway, start_gateway
from tests.http_host import Handler, serving


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Replay:
    """`answer` sets the one next answer; `request` is the body that came last."""

    def __init__(self, port: int):
        self.base_url = f"http://127.0.0.1:{port}/v1"
        self.request = b""
        self.path = ""
        self.headers: dict[str, str] = {}  # names in lower case
        self._answer = b""

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        head = f"HTTP/1.1 {status} Recorded\r\ncontent-type: {content_type}\r\n"
        if content_type.startswith("text/event-stream"):
            body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in _pieces(body)) + b"0\r\n\r\n"
            head += "transfer-encoding: chunked\r\n\r\n"
        else:
            head += f"content-length: {len(body)}\r\n\r\n"
        self._answer = head.encode() + body

    def take(self, path: str, headers: dict[str, str], request: bytes) -> bytes:
        self.path, self.headers, self.request = path, headers, request
        return self._answer


def _pieces(body: bytes, size: int = 1021) -> Iterator[bytes]:
    return (body[at : at + size] for at in range(0, len(body), size))


@contextmanager
def serve_replay() -> Iterator[Replay]:
    class Provider(Handler):
        def do_POST(self) -> None:
            self.wfile.write(replay.take(self.path, self.lower_headers(), self.body()))

    with serving(Provider) as port:
        replay = Replay(port)
        yield replay


def replay_config(providers: Iterable[str]) -> str:
    """Every provider at the replay server, with the quirks of its own row where there is one."""
    rows = [
        f'[providers.{name}]\ndialect = "openai-chat"\nbase_url = "{{url}}"\napi_key = "sk-of-the-provider"\n'
        'unpriced = "allow"\nembeddings = true\n'
        for name in sorted(set(providers))
    ]
    return "[routing]\nmax_attempts = 1\n[sim]\nenabled = false\n" + "".join(rows)


class Bench:
    """A gateway in front of a replay server, and one client connection to it."""

    def __init__(self, gateway: Gateway, replay: Replay):
        self.gateway = gateway
        self.replay = replay
        self._host = gateway.url.removeprefix("http://")
        self._headers = {"authorization": f"Bearer {gateway.key}", "content-type": "application/json"}
        self._connection = http.client.HTTPConnection(self._host, timeout=30)

    def post(self, path: str, body: bytes) -> Reply:
        self._connection.request("POST", path, body, self._headers)
        response = self._connection.getresponse()
        return Reply(response.status, {name.lower(): value for name, value in response.headers.items()}, response.read())

    def attempts(self) -> dict[str, dict[str, Any]]:
        """call id → its one attempt's ledger row. Asking for usage ships what has settled."""
        self.gateway.request("GET", "/v1/usage/recent?limit=1")
        with closing(sqlite3.connect(f"file:{self.gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return {row["call_id"]: dict(row) for row in database.execute("SELECT * FROM attempts")}

    def close(self) -> None:
        self._connection.close()
        self.gateway.kill()


@contextmanager
def bench(folder: Path, settings: str, env: Mapping[str, str] | None = None) -> Iterator[Bench]:
    """`settings`: {url} in them is the replay server's."""
    with serve_replay() as replay:
        running = Bench(start_gateway(folder, settings.format(url=replay.base_url), env), replay)
        try:
            yield running
        finally:
            running.close()
