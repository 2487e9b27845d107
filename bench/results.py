"""From runs to a report: medians, ratios to nginx, targets, Markdown. Pure: numbers in, text out.

The targets are the project's promises about its speed; a row that misses one says so, and the report lists it at its top.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.scenarios import SCENARIOS

Run = Mapping[str, Any]

MOST_TIMES_NGINX = {  # (load, whose CPU) → at most so many times nginx's
    ("plain", "worker_us"): 3.0,
    ("plain", "tree_us"): 4.0,
    ("stream_10", "tree_us"): 3.0,
    ("paced_300", "tree_us"): 2.0,
    ("paced_10", "tree_us"): 2.0,
}
LEAST_CHUNKS_PER_S = {"paced_300": 30_000}
OTHERS_TOLERATED = 0.05  # of a CPU; a run with more beside it was disturbed


@dataclass(frozen=True)
class Fact:
    """One number about the processes, and the most it may be. `key` is its name in the JSON results."""

    key: str
    title: str
    unit: str
    most: float | None = None


FACTS = (
    Fact("help_s", "`aigate --help`", "s", 0.3),
    Fact("first_start_s", "start to first 200, new data directory", "s", 1.5),
    Fact("start_s", "start to first 200, 10,000 keys in the database", "s", 1.5),
    Fact("idle_cpu_percent", "CPU of all processes, idle", "% of one CPU"),
    Fact("idle_worker_mib", "worker RSS, idle", "MiB", 60),
    Fact("idle_tree_mib", "tree RSS, idle", "MiB", 180),
    Fact("loaded_worker_mib", "worker RSS after all loads", "MiB"),
    Fact("loaded_tree_mib", "tree RSS after all loads", "MiB"),
    Fact("soak_worker_growth_mib", "worker RSS after 1.0 M calls minus after 0.2 M", "MiB", 5),
    Fact("soak_tree_growth_mib", "tree RSS after 1.0 M calls minus after 0.2 M", "MiB", 5),
    Fact("tls_peak_tree_mib", "tree RSS at most, 2,000 streams over TLS, one reader in ten slow", "MiB", 350),
)


def report(results: Mapping[str, Any]) -> str:
    """The whole page."""
    misses = missed(results)
    machine = results["machine"]
    verdict = "Every target is met." if not misses else "Missed:\n" + "\n".join(f"- {miss}" for miss in misses)
    return f"""# Results

{results['taken_at']}, commit {results['commit']}; medians of {results['repetitions']}, nginx and the gateway in turn.
{machine['cpu']}, {machine['memory']}; {machine['kernel']}; {machine['python']}; nginx {machine['nginx']}.
How this is measured: [docs/performance.md](../docs/performance.md).

{verdict}

## CPU

Microseconds for each call or chunk, counted until every row of the run is in the database. In brackets: times nginx, and the most it may be.

{_cpu_table(results['loads'])}
## Rates and times

{_rate_table(results['loads'])}
## Processes

{_fact_table(results['facts'])}"""


def missed(results: Mapping[str, Any]) -> list[str]:
    """Each target that was not met, in words."""
    misses = []
    titles = {scenario.name: scenario.title for scenario in SCENARIOS}
    for (name, column), most in MOST_TIMES_NGINX.items():
        if name in results["loads"] and (ratio := times_nginx(results["loads"][name], column)) > most:
            misses.append(f"{titles[name]}, CPU of the {column.removesuffix('_us')}: {ratio:.2f} × nginx, target {most:g} ×")
    for name, least in LEAST_CHUNKS_PER_S.items():
        if name in results["loads"] and (rate := median(results["loads"][name]["gateway"], "chunks_per_s")) < least:
            misses.append(f"{titles[name]}: {rate:,.0f} chunks/s, target {least:,}")
    for fact in FACTS:
        value = results["facts"].get(fact.key)
        if value is not None and fact.most is not None and value > fact.most:
            misses.append(f"{fact.title}: {value:.2f} {fact.unit}, target {fact.most:g}")
    return misses


def median(runs: Iterable[Run], path: str) -> float:
    """Of one number of the runs; `path` such as "total.p50"."""
    return statistics.median(_at(run, path) for run in runs)


def times_nginx(load: Mapping[str, Sequence[Run]], column: str) -> float:
    return median(load["gateway"], column) / median(load["nginx"], "tree_us")


def _at(run: Run, path: str) -> float:
    value: Any = run
    for name in path.split("."):
        value = value[name]
    return value


def _cpu_table(loads: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    rows = []
    for scenario in SCENARIOS:
        if load := loads.get(scenario.name):
            cells = [scenario.title, "chunk" if scenario.is_stream else "call", f"{median(load['nginx'], 'tree_us'):.2f}"]
            for column in ("worker_us", "tree_us"):
                most = MOST_TIMES_NGINX.get((scenario.name, column))
                target = f", ≤ {most:g}" if most else ""
                cells.append(f"{median(load['gateway'], column):.2f} ({times_nginx(load, column):.2f} ×{target})")
            rows.append(cells)
    return table(("load", "for each", "nginx", "worker", "all processes"), rows)


def _rate_table(loads: Mapping[str, Mapping[str, Sequence[Run]]]) -> str:
    rows = []
    for scenario in SCENARIOS:
        for server, runs in loads.get(scenario.name, {}).items():
            rate, transit = f"{median(runs, 'per_s'):,.0f} calls/s", "–"
            if scenario.is_stream:
                rate = f"{median(runs, 'chunks_per_s'):,.0f} chunks/s"
            if scenario.delay_ms:
                transit = _times(runs, "transit")
            rows.append(
                (scenario.title, server, rate, _times(runs, "ttfb"), _times(runs, "total"), transit, _noise(runs)),
            )
    head = ("load", "through", "rate", "first byte, ms (p50 / p99)", "whole reply, ms (p50 / p99)", "chunk on its way, ms (p50 / p99)", "others' CPU")
    return table(head, rows)


def _times(runs: Sequence[Run], series: str) -> str:
    return " / ".join(f"{median(runs, f'{series}.{quantile}') / 1000:,.2f}" for quantile in ("p50", "p99"))


def _noise(runs: Sequence[Run]) -> str:
    """The most that anything else on the machine took during one of the runs."""
    share = max(run["others_share"] for run in runs)
    return f"{share:.0%}" + (" **disturbed**" if share > OTHERS_TOLERATED else "")


def _fact_table(facts: Mapping[str, float]) -> str:
    rows = [
        (fact.title, f"{facts[fact.key]:.2f} {fact.unit}", f"≤ {fact.most:g} {fact.unit}" if fact.most is not None else "–")
        for fact in FACTS
        if fact.key in facts
    ]
    return table(("what", "measured", "target"), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
