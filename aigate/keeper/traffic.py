"""What went through, for /metrics: counted from ledger rows as they are shipped, so the data path pays nothing for it.

Starts at zero with the keeper, as Prometheus expects of counters. Labels come from the catalogue only: a name that it does not list is
counted under its provider as `provider/*`, so callers cannot make labels.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable
from itertools import accumulate
from operator import itemgetter

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aigate.journal.records import CallEnd
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.tables import attempts

BOUNDS_MS = (50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 120_000, 300_000)

_ATTEMPT_FIELDS = [column.name for column in attempts.columns]


def _picker(fields: Iterable[str], *names: str) -> Callable[[tuple], tuple]:
    order = list(fields)
    return itemgetter(*map(order.index, names))


_call_end = _picker(CallEnd.__struct_fields__, "served_by", "asked_model", "status")
_attempt_end = _picker(_ATTEMPT_FIELDS, "model", "end", "latency_ms", "ttft_ms")


class _Times:
    """How many took up to each bound, and how long all took."""

    __slots__ = ("counts", "sum_ms")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_MS) + 1)
        self.sum_ms = 0

    def add(self, time_ms: int, count: int) -> None:
        self.counts[bisect_left(BOUNDS_MS, time_ms)] += count
        self.sum_ms += time_ms * count

    def buckets(self) -> list[tuple[str, float]]:
        bounds = [str(bound / 1000) for bound in BOUNDS_MS] + ["+Inf"]
        return list(zip(bounds, accumulate(self.counts), strict=True))


class Traffic(Collector):
    """`add` is called on the database's writing thread, `collect` on the loop's."""

    def __init__(self, models: Collection[str], providers: Collection[str]):
        self._models = frozenset(models)
        self._providers = frozenset(providers)
        self._lock = threading.Lock()
        self._calls: Counter[tuple[str, str]] = Counter()  # model, status
        self._attempts: Counter[tuple[str, str]] = Counter()  # model, end
        self._sums: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0])  # model → nano-dollars, input and output tokens
        self._durations: defaultdict[str, _Times] = defaultdict(_Times)
        self._first_bytes: defaultdict[str, _Times] = defaultdict(_Times)

    def add(self, batch: Batch) -> None:
        """Rows are grouped first: most of a batch are alike."""
        with self._lock:
            for (served_by, asked_model, status), count in Counter(map(_call_end, batch.calls)).items():
                self._calls[self._label(served_by or asked_model), str(status)] += count
            for (model, end, latency_ms, ttft_ms), count in Counter(map(_attempt_end, batch.attempts)).items():
                label = self._label(model)
                self._attempts[label, end] += count
                if latency_ms >= 0:
                    self._durations[label].add(latency_ms, count)
                if ttft_ms >= 0:
                    self._first_bytes[label].add(ttft_ms, count)
            for share, (_, _, cost_nanousd, input_tokens, output_tokens, _) in batch.totals.items():
                if cost_nanousd or input_tokens or output_tokens:
                    sums = self._sums[self._label(share.model)]
                    for place, amount in enumerate((cost_nanousd, input_tokens, output_tokens)):
                        sums[place] += amount

    def _label(self, model: str) -> str:
        if model in self._models:
            return model
        provider = model.partition("/")[0]
        return f"{provider}/*" if provider in self._providers else ""

    def collect(self) -> Iterable[Metric]:
        """As prometheus-client asks a collector."""
        calls = CounterMetricFamily("aigate_calls", "Calls ended, by the model that answered (or was asked) and the status sent", labels=["model", "status"])
        tries = CounterMetricFamily("aigate_attempts", "Attempts ended: complete, aborted, failed or unsettled", labels=["model", "end"])
        tokens = CounterMetricFamily("aigate_tokens", "Input and output tokens", labels=["model", "kind"])
        cost = CounterMetricFamily("aigate_cost_usd", "Dollars, at the ledger's prices", labels=["model"])
        durations = HistogramMetricFamily("aigate_attempt_duration_seconds", "From an attempt's sending to its end", labels=["model"])
        first_bytes = HistogramMetricFamily("aigate_first_byte_seconds", "From a streamed call's arrival to its first byte", labels=["model"])
        with self._lock:
            for family, counts in ((calls, self._calls), (tries, self._attempts)):
                for labels, count in sorted(counts.items()):
                    family.add_metric(labels, count)
            for model, (cost_nanousd, input_tokens, output_tokens) in sorted(self._sums.items()):
                cost.add_metric([model], cost_nanousd / 1e9)
                tokens.add_metric([model, "input"], input_tokens)
                tokens.add_metric([model, "output"], output_tokens)
            for histogram, times in ((durations, self._durations), (first_bytes, self._first_bytes)):
                for model, spent in sorted(times.items()):
                    histogram.add_metric([model], spent.buckets(), spent.sum_ms / 1000)
        return calls, tries, tokens, cost, durations, first_bytes
