"""The Prometheus text: workers' counters as they reported them, and the keeper's own gauges.

Names arrive as `name;label=value;…` (messages.Health). Which labels exist is decided where they are counted, from the
catalogue only; here nothing is added from a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from aigate.keeper.push import is_counter

PREFIX = "aigate_"


def render(numbers: Mapping[str, float]) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Numbers(numbers))
    return generate_latest(registry)


class _Numbers:
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
                family = families[name] = kind(PREFIX + name, name.replace("_", " "))
            family.add_sample(PREFIX + name, labels, self._numbers[key])
        return families.values()
