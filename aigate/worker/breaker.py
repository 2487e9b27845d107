"""Circuit breakers, one per target slug: a target that keeps failing is left alone for a while, then probed by one call.

Pure state; `now` is an argument. Only failures that say the target is unwell count (a refused request says nothing of it).
"""

from __future__ import annotations

UNWELL = frozenset({"refused", "reset", "timeout", "overloaded", "bad_reply", "cut", "error"})  # ProviderError.kind


class Breaker:
    """closed → open after `failures` in a row → half-open after `open_s`: one probe decides."""

    __slots__ = ("failures", "opened_at", "probed_at", "last_error")

    def __init__(self) -> None:
        self.failures = 0
        self.opened_at: float | None = None
        self.probed_at: float | None = None  # a probe is out; one that never reports (a refused caller) makes way after open_s
        self.last_error = ""


class Breakers:
    """All breakers of a worker. A target that never failed has none, so the common look-up finds nothing and costs nothing."""

    def __init__(self, *, failures: int = 5, open_s: float = 10.0):
        self._failures = failures
        self._open_s = open_s
        self._breakers: dict[str, Breaker] = {}

    def admits(self, slug: str, now: float) -> bool:
        """May a call go there? In half-open state only the first asker may; it must then report `succeeded` or `failed`."""
        breaker = self._breakers.get(slug)
        if breaker is None or breaker.opened_at is None:
            return True
        if now - breaker.opened_at < self._open_s or (breaker.probed_at is not None and now - breaker.probed_at < self._open_s):
            return False
        breaker.probed_at = now
        return True

    def reopens_in_s(self, slug: str, now: float) -> float:
        breaker = self._breakers.get(slug)
        if breaker is None or breaker.opened_at is None:
            return 0.0
        return max(0.0, breaker.opened_at + self._open_s - now)

    def succeeded(self, slug: str) -> None:
        if self._breakers:
            self._breakers.pop(slug, None)

    def failed(self, slug: str, kind: str, now: float) -> None:
        """`kind` of the ProviderError; what does not speak of the target's health only ends a probe, undecided."""
        breaker = self._breakers.get(slug)
        if kind not in UNWELL:
            if breaker is not None:
                breaker.probed_at = None
            return
        if breaker is None:
            breaker = self._breakers[slug] = Breaker()
        breaker.failures += 1
        breaker.last_error = kind
        if breaker.probed_at is not None or breaker.failures >= self._failures:
            breaker.opened_at = now
            breaker.probed_at = None

    def states(self, now: float) -> dict[str, dict[str, object]]:
        """For /v1/health/providers: slug → {state, failures, last_error}."""
        return {slug: self._state(breaker, now) for slug, breaker in self._breakers.items()}

    def _state(self, breaker: Breaker, now: float) -> dict[str, object]:
        if breaker.opened_at is None:
            state = "closed"
        else:
            state = "open" if now - breaker.opened_at < self._open_s else "half_open"
        return {"state": state, "failures": breaker.failures, "last_error": breaker.last_error}
