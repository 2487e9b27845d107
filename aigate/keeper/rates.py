"""The keeper's buckets of permits, and which worker holds running streams. Rate limits live in memory only: they are not money.

A worker that ends gives its streams back; a keeper that starts anew is told by the workers what they took of late.
"""

from __future__ import annotations

from collections.abc import Hashable

from aigate.core.rate import STREAMS, Buckets, Rate
from aigate.messages import GiveBack, InUse, Permits, Permitted

SWEEP_ABOVE = 10_000  # buckets


class RateDesk:
    """`worker` is a connection: what identifies it until `closed`. `now` is monotonic seconds."""

    def __init__(self) -> None:
        self._buckets = Buckets()
        self._running: dict[Hashable, dict[Rate, int]] = {}
        self._sweep_above = SWEEP_ABOVE

    def take(self, worker: Hashable, asked: Permits, now: float) -> Permitted:
        if len(self._buckets) > self._sweep_above:
            self._buckets.sweep(now)
            self._sweep_above = max(SWEEP_ABOVE, 2 * len(self._buckets))
        shares = tuple(self._buckets.take(want, now) for want in asked.wants)
        for want, share in zip(asked.wants, shares, strict=True):
            self._note_streams(worker, want.rate, share.given)
        return Permitted(asked.number, shares)

    def give_back(self, worker: Hashable, given: GiveBack, now: float) -> None:
        for rate, permits in given.permits:
            self._buckets.give_back(rate, permits, now)
            self._note_streams(worker, rate, -permits)

    def note_use(self, worker: Hashable, told: InUse, now: float) -> None:
        for rate, permits in told.permits:
            self._buckets.note_use(rate, permits, now)
            self._note_streams(worker, rate, permits)

    def closed(self, worker: Hashable, now: float) -> None:
        for rate, permits in self._running.pop(worker, {}).items():
            self._buckets.give_back(rate, permits, now)

    def _note_streams(self, worker: Hashable, rate: Rate, permits: int) -> None:
        if rate.kind == STREAMS and permits:
            running = self._running.setdefault(worker, {})
            running[rate] = running.get(rate, 0) + permits
            if not running[rate]:
                del running[rate]
