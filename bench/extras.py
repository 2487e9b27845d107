"""The measurements beside the loads: start and memory of the processes, a long run, many streams over TLS with slow readers."""

from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from bench.machine import HERE, BenchError, cpu_s, environment, rss_mib
from bench.scenarios import PLAIN, Inputs, load_command, measure, run_load
from bench.servers import LOAD_CPU, ROOT_KEY, Gateway, Mock, Nginx

SOAK_FIRST, SOAK_ALL = 200_000, 1_000_000
TLS_STREAMS, TLS_SLOW_EVERY = 2_000, 10
TLS_CHUNKS = 2_000  # 600 KB a stream: more than all buffers on the way to a slow reader hold, so that back-pressure must work
IDLE_S = 3.0  # after the first call, for what a start leaves behind to settle; and then to measure


def help_s(repetitions: int) -> float:
    times = []
    for _ in range(repetitions + 1):  # the first compiles the modules
        started_at = time.monotonic()
        subprocess.run([sys.executable, "-m", "aigate", "--help"], cwd=HERE.parent, env=environment(), stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - started_at)
    return statistics.median(times[1:])


def idle_facts(gateway: Gateway) -> dict[str, float]:
    time.sleep(IDLE_S)
    tree, started_at, cpu_before_s = gateway.tree(), time.monotonic(), cpu_s(gateway.tree())
    time.sleep(IDLE_S)
    share = (cpu_s(tree) - cpu_before_s) / (time.monotonic() - started_at)
    return {"start_s": gateway.start_s, "idle_cpu_percent": 100 * share, **memory("idle", gateway)}


def memory(prefix: str, gateway: Gateway) -> dict[str, float]:
    return {f"{prefix}_worker_mib": rss_mib(gateway.workers()), f"{prefix}_tree_mib": rss_mib(gateway.tree())}


def soak_facts(gateway: Gateway, mock: Mock, inputs: Inputs) -> dict[str, float]:
    """How much memory 0.8 million further calls cost, all their rows written."""
    options = {"-b": inputs.plain_body, "-k": inputs.keys, "-c": PLAIN.connections}
    measure(PLAIN, gateway, mock=mock, command=load_command(options | {"-n": SOAK_FIRST}, gateway.port))
    first = memory("soak", gateway)
    measure(PLAIN, gateway, mock=mock, command=load_command(options | {"-n": SOAK_ALL - SOAK_FIRST}, gateway.port))
    last = memory("soak", gateway)
    return {name.replace("_mib", "_growth_mib"): last[name] - first[name] for name in first}


def tls_facts(folder: Path) -> dict[str, float]:
    """The most memory a gateway of its own takes for many streams from a TLS provider, some read slowly."""
    _make_certificate(folder)
    with ExitStack() as stack:
        mock = stack.enter_context(Mock(folder, chunks=TLS_CHUNKS))
        provider = stack.enter_context(Nginx(folder, mock_port=mock.port, cpu=LOAD_CPU, is_tls=True))
        settings = f'\n[upstream]\nca_file = "{folder}/certificate.pem"\n'
        gateway = stack.enter_context(Gateway(folder, f"https://localhost:{provider.port}/v1", settings))
        inputs = Inputs(folder, [ROOT_KEY])
        options = {"-b": inputs.stream_body, "-k": inputs.keys, "-c": TLS_STREAMS, "-n": TLS_STREAMS, "-s": 2, "-t": 120, "-S": TLS_SLOW_EVERY}
        with PeakMemory(gateway) as peak:
            loaded = run_load(load_command(options, gateway.port))
        if loaded["done"] != TLS_STREAMS:
            raise BenchError(f"{loaded['done']} of {TLS_STREAMS} streams ended as they should")
        return {"tls_peak_tree_mib": peak.mib}


class PeakMemory:
    """Watches the RSS of a gateway's tree while a block runs."""

    def __init__(self, gateway: Gateway):
        self.mib = 0.0
        self._gateway = gateway
        self._is_over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._is_over.wait(0.1):
            self.mib = max(self.mib, rss_mib(self._gateway.tree()))


def _make_certificate(folder: Path) -> None:
    key, certificate = folder / "private.pem", folder / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *names, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
