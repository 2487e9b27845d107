"""The Prometheus text: workers' numbers as they reported them, the keeper's own gauges, and what other collectors have.

Names arrive as `name;label=value;…` (messages.Health). Which labels exist is decided where they are counted, from the
catalogue only; here nothing is added from a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from aigate.keeper.push import is_counter

PREFIX = "aigate_"
HELP = {
    "journal_healthy": "Workers whose journal can be written",
    "journals_living": "Journals not read to their end yet",
    "journals_with_problems": "Journals that cannot be shipped",
    "ledger_rows_shipped_total": "Rows written to the ledger since the keeper's start",
    "lost_records": "Records that living workers could not write to their journal",
    "workers_connected": "Workers that talk to the keeper",
}


def render(numbers: Mapping[str, float], *others: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    for collector in (_Numbers(numbers), *others):
        registry.register(collector)
    return generate_latest(registry)


class _Numbers(Collector):
    def __init__(self, numbers: Mapping[str, float]):
        self._numbers = numbers

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for key in sorted(self._numbers):
            name, *pairs = key.split(";")
            labels = dict(pair.split("=", 1) for pair in pairs)
            family = families.get(name)
            if family is None:
                kind = CounterMetricFamily if is_counter(name) else GaugeMetricFamily
                family = families[name] = kind(PREFIX + name, HELP.get(name, name.replace("_", " ")))
            family.add_sample(PREFIX + name, labels, self._numbers[key])
        return families.values()
