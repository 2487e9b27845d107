"""A real simulated provider, as a process on a free port, and a plain HTTP client for it."""

import http.client
import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import count

import pytest

_numbers = count()


@dataclass
class Answer:
    status: int
    headers: dict
    body: bytes
    attempt: str
    is_whole: bool

    def json(self):
        return json.loads(self.body)

    def chunks(self):
        """The data events that are JSON, decoded."""
        events = [line.removeprefix(b"data: ") for line in self.body.splitlines() if line.startswith(b"data: ")]
        return [json.loads(event) for event in events if event != b"[DONE]"]

    def text(self):
        return "".join(choice["delta"].get("content") or "" for chunk in self.chunks() for choice in chunk["choices"])


@dataclass
class Sim:
    process: subprocess.Popen
    port: int
    bill_path: str
    base_url: str = field(init=False)

    def __post_init__(self):
        self.base_url = f"http://127.0.0.1:{self.port}/v1"

    def request(self, method, path, body=None, headers=()):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers))
            reply = connection.getresponse()
            try:
                data, is_whole = reply.read(), True
            except (http.client.IncompleteRead, ConnectionResetError) as error:
                data, is_whole = getattr(error, "partial", b""), False
            return reply.status, dict(reply.getheaders()), data, is_whole
        finally:
            connection.close()

    def chat(self, model, text="hello there", **fields) -> Answer:
        attempt = f"att_{next(_numbers)}"
        body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **fields})
        status, headers, data, is_whole = self.request("POST", "/v1/chat/completions", body, {"x-aig-attempt": attempt})
        return Answer(status, headers, data, attempt, is_whole)

    def get(self, path):
        return json.loads(self.request("GET", path)[2])

    def billed(self, attempt):
        """The last row of this attempt on the bill."""
        return [row for row in self.get("/sim/bill")["attempts"] if row["attempt"] == attempt][-1]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.ended()

    def ended(self):
        code = self.process.wait(timeout=20)
        self.process.stdout.close()
        return code


@pytest.fixture(scope="session")
def start():
    """start(bill_path, *options) → Sim, to be stopped by who started it."""
    return _start


def _start(bill_path, *options):
    command = [sys.executable, "-m", "aigate.sim", "--port", "0", "--bill", str(bill_path), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    assert "http://" in line, f"the sim did not start: {line!r}"
    return Sim(process, int(line.rpartition(":")[2].partition("/")[0]), str(bill_path))


@pytest.fixture(scope="session")
def sim(tmp_path_factory):
    started = _start(tmp_path_factory.mktemp("sim") / "bill.jsonl")
    yield started
    assert started.stop() == 0
