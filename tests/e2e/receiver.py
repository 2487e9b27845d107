"""A receiver of webhooks in a process of its own: notes each in a file, a JSON line, and refuses some. `python -m tests.e2e.receiver FILE SEED SHARE`"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Receiver:
    def __init__(self, url: str, notes: Path):
        self.url = url
        self._notes = notes

    def got(self) -> list[dict[str, Any]]:
        """In the order of their coming: path, status (what was answered), headers, body (as text)."""
        lines = self._notes.read_text().split("\n")[:-1] if self._notes.exists() else []
        return [json.loads(line) for line in lines]


@contextmanager
def receiver(folder: Path, *, seed: int = 1, refused_share: float = 0.0) -> Iterator[Receiver]:
    notes = folder / "received.jsonl"
    command = [sys.executable, "-m", "tests.e2e.receiver", str(notes), str(seed), str(refused_share)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield Receiver(process.stdout.readline().strip(), notes)
    finally:
        process.kill()
        process.wait()


def main(notes: str, seed: str, share: str) -> None:
    chance = random.Random(int(seed))
    file = open(notes, "a", buffering=1)  # noqa: SIM115  for as long as the process lives

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            body = self.rfile.read(length).decode()
            if len(body.encode()) < length:
                return  # its sender was killed
            status = 503 if chance.random() < float(share) else 200
            headers = {name.lower(): value for name, value in self.headers.items()}
            file.write(json.dumps({"path": self.path, "status": status, "headers": headers, "body": body}) + "\n")
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
