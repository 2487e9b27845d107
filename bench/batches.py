"""`python -m bench.batches`: what a line of a batch costs over the same call made plainly, in the keeper and in the worker.

In turn, on one gateway: so many plain calls over 32 connections, then a batch of as many lines. CPU clocks of the processes, from before the
first until every row is in the database, so that the rows' own cost is in both.
"""

from __future__ import annotations

import http.client
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from aigate.cli.connection import Server as Client
from bench.machine import build, command_line, cpu_s, require
from bench.servers import ROOT_KEY, Gateway, Mock

LINES, ROUNDS, CONNECTIONS = 10_000, 5, 32
PATH = "/v1/chat/completions"
WARM_UP = 500


def main() -> None:
    lines = int(sys.argv[1]) if len(sys.argv) > 1 else LINES
    require("gcc")
    build()
    with tempfile.TemporaryDirectory() as name, Mock(Path(name)) as mock, Gateway(Path(name), f"http://127.0.0.1:{mock.port}/v1") as gateway:
        client = Client(f"http://127.0.0.1:{gateway.port}", ROOT_KEY)
        run_plain(gateway, WARM_UP)
        run_batch(client, WARM_UP)
        rounds = []
        for _ in range(ROUNDS):
            plain, batch = measure(gateway, lines, lambda: run_plain(gateway, lines)), measure(gateway, lines, lambda: run_batch(client, lines))
            rounds.append([batch[place] - plain[place] for place in (0, 1)] + [batch[2]])
        keeper, worker, wall_s = (statistics.median(values) for values in zip(*rounds, strict=True))
        print(f"{lines} lines, median of {ROUNDS}: over a plain call {keeper:.0f} us of CPU a line in the keeper, {worker:.0f} in the worker")
        print(f"{lines / wall_s:.0f} lines a second")


def measure(gateway: Gateway, lines: int, work: Callable[[], None]) -> tuple[float, float, float]:
    """(keeper's, worker's us of CPU a line, s in all)."""
    processes = [[pid for pid in gateway.tree() if f"aigate.{part}" in command_line(pid)] for part in ("keeper", "worker")]
    rows, before, began = gateway.rows()[0], [cpu_s(pids) for pids in processes], time.monotonic()
    work()
    wall_s = time.monotonic() - began
    while gateway.rows()[0] < rows + lines:
        time.sleep(0.05)
    keeper, worker = (1e6 * (cpu_s(pids) - since) / lines for pids, since in zip(processes, before, strict=True))
    return keeper, worker, wall_s


def body(number: int) -> dict[str, object]:
    return {"model": "mock/gpt", "messages": [{"role": "user", "content": f"question {number}"}]}


def run_plain(gateway: Gateway, lines: int) -> None:
    def ask(first: int) -> None:
        with closing(http.client.HTTPConnection("127.0.0.1", gateway.port)) as connection:
            for number in range(first, lines, CONNECTIONS):
                connection.request("POST", PATH, json.dumps(body(number)), {"authorization": f"Bearer {ROOT_KEY}"})
                connection.getresponse().read()

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        list(pool.map(ask, range(CONNECTIONS)))


def run_batch(client: Client, lines: int) -> None:
    requests = ({"custom_id": str(number), "url": PATH, "body": body(number)} for number in range(lines))
    data = b"".join(json.dumps(each).encode() + b"\n" for each in requests)
    uploaded = client.upload("/v1/files", {"purpose": "batch"}, "in.jsonl", io.BytesIO(data))
    batch = client.request("POST", "/v1/batches", {"input_file_id": uploaded["id"]})
    while batch["status"] not in ("completed", "failed"):
        time.sleep(0.5)
        batch = client.request("GET", f"/v1/batches/{batch['id']}")
    assert batch["request_counts"]["completed"] == lines, batch


if __name__ == "__main__":
    main()
