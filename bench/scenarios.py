"""The measured loads, and one run of one load on one server.

A run is worth something only if every reply was whole and right, and, for the gateway, if its ledger ends with exactly one row
a call and one an attempt that the provider saw: anything else raises. CPU is counted until those rows are in the database.
"""

from __future__ import annotations

import json
import resource
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.machine import BINARIES, HERE, BenchError, cpu_s, machine_busy_s, rss_mib
from bench.servers import Gateway, Mock, Nginx

WARM_CALLS = 20_000  # each key twice: those known, connections open, code paths taken
SETTLE_S = 0.3  # for connections of the run before to close


@dataclass(frozen=True)
class Scenario:
    """`delay_ms`, `group`: the mock's pace. `seconds` of counting follow `warm_s` that are not counted for times, but are for CPU."""

    name: str
    title: str
    connections: int
    seconds: float
    is_stream: bool = False
    delay_ms: int = 0
    group: int = 10
    warm_s: float = 0.5
    spread_s: float = 0.0
    takes_turns: bool = False  # every call with another of the keys, else all with one

    def command(self, inputs: Inputs, port: int) -> list[str]:
        body = inputs.stream_body if self.is_stream else inputs.plain_body
        keys = inputs.keys if self.takes_turns else inputs.one_key
        options = {"-b": body, "-k": keys, "-c": self.connections, "-d": self.seconds, "-w": self.warm_s, "-s": self.spread_s}
        return load_command(options, port)


PLAIN = Scenario("plain", "plain calls, 64 connections", 64, 8)
SCENARIOS = (
    PLAIN,
    Scenario("plain_keys", "plain calls, every call another key", 64, 8, takes_turns=True),
    Scenario("one", "plain calls, one connection", 1, 4),
    Scenario("stream_10", "50 streams, ten chunks to a write", 50, 5, is_stream=True),
    Scenario("stream_1", "50 streams, one chunk to a write", 50, 5, is_stream=True, group=1),
    Scenario("paced_300", "300 streams, a chunk each 10 ms", 300, 6, is_stream=True, delay_ms=10, group=1, warm_s=2, spread_s=1),
    Scenario("paced_10", "10 streams, a chunk each 10 ms", 10, 4, is_stream=True, delay_ms=10, group=1, warm_s=1, spread_s=1),
)


class Inputs:
    """What the load client reads: the two bodies, all keys, and one of them alone."""

    def __init__(self, folder: Path, keys: list[str]):
        self.plain_body = HERE / "request.json"
        self.stream_body = folder / "stream.json"
        self.stream_body.write_text(json.dumps(json.loads(self.plain_body.read_text()) | {"stream": True}))
        self.keys = folder / "keys.txt"
        self.keys.write_text("\n".join(keys) + "\n")
        self.one_key = folder / "one-key.txt"
        self.one_key.write_text(keys[0] + "\n")


def load_command(options: dict[str, Any], port: int) -> list[str]:
    return [str(BINARIES / "load"), *(str(word) for option in options.items() for word in option), str(port)]


def warm_up(server: Gateway | Nginx, mock: Mock, inputs: Inputs) -> None:
    options = {"-b": inputs.plain_body, "-k": inputs.keys, "-c": PLAIN.connections, "-n": WARM_CALLS}
    measure(PLAIN, server, mock=mock, command=load_command(options, server.port))


def measure(scenario: Scenario, server: Gateway | Nginx, *, mock: Mock, command: list[str]) -> dict[str, Any]:
    """One run. CPU in microseconds, of the workers and of the tree, for each call or chunk."""
    mock.pace(scenario.delay_ms, scenario.group)
    time.sleep(SETTLE_S)
    is_gateway = isinstance(server, Gateway)
    tree = server.tree()
    workers = server.workers() if is_gateway else tree
    rows_before = server.rows() if is_gateway else (0, 0)
    before = _counters(tree, workers, mock)
    loaded = run_load(command)
    if is_gateway:
        server.wait_for_rows((rows_before[0] + loaded["all"], rows_before[1] + mock.stats()["requests"] - before["requests"]))
        if server.tree() != tree:
            raise BenchError("a process of the gateway ended or started during a run")
    after = _counters(tree, workers, mock)
    spent = {name: after[name] - before[name] for name in before}
    if spent["requests"] != loaded["all"]:
        raise BenchError(f"{loaded['all']} calls were made, {spent['requests']} reached the provider")
    if is_gateway and abs(loaded["usage"] - loaded["done"]) > scenario.connections:  # some were counted on one side of the warm-up only
        raise BenchError(f"{loaded['usage']} usage chunks in {loaded['done']} streams")
    units = spent["events"] if scenario.is_stream else loaded["all"]
    others_s = spent["busy_s"] - spent["tree_s"] - spent["mock_s"] - spent["load_s"]
    return loaded | {
        "units": units,
        "worker_us": 1e6 * spent["worker_s"] / units,
        "tree_us": 1e6 * spent["tree_s"] / units,
        "tree_share": spent["tree_s"] / spent["wall_s"],
        "others_share": max(0.0, others_s / spent["wall_s"]),
        "tree_rss_mib": rss_mib(tree),
        "chunks_per_s": scenario.connections * spent["events"] / loaded["all"] / (loaded["total"]["mean"] / 1e6),
    }


def run_load(command: list[str]) -> dict[str, Any]:
    """Runs the load client; every reply must have been whole, and every stream ended by its terminal event."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        raise BenchError(f"the load client saw failures: {done.stdout[:300]} {done.stderr[:1000]}")
    loaded = json.loads(done.stdout)
    if loaded["stamped"] and not loaded["done"]:
        raise BenchError("streams ended without data: [DONE]")
    return loaded


def _counters(tree: list[int], workers: list[int], mock: Mock) -> dict[str, float]:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]  # ours and the load client's
    stats = mock.stats()
    return {
        "worker_s": cpu_s(workers),
        "tree_s": cpu_s(tree),
        "mock_s": cpu_s([mock.pid]),
        "load_s": sum(usage.ru_utime + usage.ru_stime for usage in used),
        "busy_s": machine_busy_s(),
        "wall_s": time.monotonic(),
        "requests": stats["requests"],
        "events": stats["events"],
    }
