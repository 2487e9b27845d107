"""`python -m bench`: builds the tools, starts everything, measures, prints the report and keeps it beside the source."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import extras, machine
from bench.results import report
from bench.scenarios import SCENARIOS, Inputs, Scenario, measure, warm_up
from bench.servers import KEY_COUNT, LOAD_CPU, Gateway, Mock, Nginx

QUICK_S, QUICK_REPETITIONS = 1.5, 1


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench", description="Measure the gateway beside nginx.", allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help="one short run of each load, to see that all works; keeps no results")
    parser.add_argument("--soak", action="store_true", help="also one million calls: does memory grow?")
    parser.add_argument("--tls", action="store_true", help="also 2,000 streams over TLS, one reader in ten slow: how much memory?")
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", metavar="LOAD", action="append", choices=names, help=f"of {', '.join(names)}: this one only (may repeat); keeps no results")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="runs of each load on each server (3)")
    parser.add_argument("--out", type=Path, default=machine.HERE, metavar="DIR", help="where results.md and results.json go (bench/)")
    options = parser.parse_args()
    try:
        results = _run(options)
    except machine.BenchError as error:
        sys.stderr.write(f"bench: {error}\n")
        return 1
    page = report(results)
    if not options.quick and not options.only:
        (options.out / "results.md").write_text(page)
        (options.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.stdout.write(page)
    return 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    machine.require("gcc", "nginx", *(("openssl",) if options.tls else ()))
    machine.build()
    os.sched_setaffinity(0, {LOAD_CPU})  # the load client inherits it
    repetitions = QUICK_REPETITIONS if options.quick else options.repetitions
    results: dict[str, Any] = {
        "taken_at": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "machine": machine.describe(),
        "repetitions": repetitions,
        "facts": {"help_s": extras.help_s(repetitions)},
        "loads": {},
    }
    # Beside the source, as the system's temporary folder may be in memory, where writing to disk costs nothing.
    with tempfile.TemporaryDirectory(prefix="run-", dir=machine.BINARIES) as name:
        folder = Path(name)
        folder.chmod(0o711)  # nginx's worker is another user
        _measure_beside_nginx(options, folder, results)
        if options.tls:
            _say("2,000 streams over TLS")
            tls_folder = folder / "tls"
            tls_folder.mkdir(mode=0o711)
            results["facts"] |= extras.tls_facts(tls_folder)
    return results


def _measure_beside_nginx(options: argparse.Namespace, folder: Path, results: dict[str, Any]) -> None:
    facts = results["facts"]
    with ExitStack() as stack:
        mock = stack.enter_context(Mock(folder))
        base_url = f"http://127.0.0.1:{mock.port}/v1"
        _say(f"first start, {KEY_COUNT:,} keys")
        keys = _first_start(folder, base_url, facts)
        inputs = Inputs(folder, keys)
        nginx = stack.enter_context(Nginx(folder, mock_port=mock.port, keys=keys))
        gateway = stack.enter_context(Gateway(folder, base_url))
        facts |= extras.idle_facts(gateway)
        for server in (nginx, gateway):
            warm_up(server, mock, inputs)
        for scenario in _chosen(options):
            runs = results["loads"][scenario.name] = {"nginx": [], "gateway": []}
            for _ in range(results["repetitions"]):
                for name, server in (("nginx", nginx), ("gateway", gateway)):
                    run = measure(scenario, server, mock=mock, command=scenario.command(inputs, server.port))
                    _say(f"{scenario.title}: {name} {run['tree_us']:.2f} µs")
                    runs[name].append(run)
        facts |= extras.memory("loaded", gateway)
        if gateway.rows() != gateway.counted_rows():
            raise machine.BenchError(f"the ledger's sums say {gateway.rows()}, its tables hold {gateway.counted_rows()} calls and attempts")
        if options.soak:
            _say("one million calls")
            facts |= extras.soak_facts(gateway, mock, inputs)


def _chosen(options: argparse.Namespace) -> list[Scenario]:
    chosen = [scenario for scenario in SCENARIOS if not options.only or scenario.name in options.only]
    return [replace(scenario, seconds=QUICK_S) for scenario in chosen] if options.quick else chosen


def _first_start(folder: Path, base_url: str, facts: dict[str, float]) -> list[str]:
    with Gateway(folder, base_url) as gateway:
        facts["first_start_s"] = gateway.start_s
        return gateway.create_keys(KEY_COUNT)


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=machine.HERE, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def _say(progress: str) -> None:
    sys.stderr.write(f"{progress}\n")


if __name__ == "__main__":
    sys.exit(main())
