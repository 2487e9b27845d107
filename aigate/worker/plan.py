"""plan: which targets a call may use, in which order, and what to do after an attempt. Step 4 of the data path.

Pure: `now` and random numbers are arguments, so a policy is tested with a list of outcomes. Retry and fallback end with the first
byte that reaches the client; the spine asks `after` only before that.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import NamedTuple

import msgspec

from aigate.core.allow import check_allowed
from aigate.core.call import Call, Principal
from aigate.core.edits import is_reasoning
from aigate.core.target import Target
from aigate.errors import ClientError, GateError, GatewayError, ProviderError
from aigate.worker.breaker import Breakers


class Policy(msgspec.Struct, frozen=True):
    """At most 3 hops inside 8 s; retries from 250 ms, doubled, ±20 %."""

    max_attempts: int = 3
    budget_s: float = 8.0
    retry_base_ms: int = 250


class Step(NamedTuple):
    target: Target
    delay_s: float


# After these, asking the very same target again is pointless or could be paid for twice; another target may still do.
ONCE_PER_TARGET = frozenset({"auth", "timeout", "rejected", "bad_reply"})


class Plan:
    """The targets of one call in order, and how far it has come: to the first, unless `first` says another."""

    __slots__ = ("_targets", "_policy", "_breakers", "_tried", "_spent", "_place", "_deadline")

    def __init__(self, targets: list[Target], policy: Policy, breakers: Breakers, now: float):
        self._targets = targets
        self._policy = policy
        self._breakers = breakers
        self._tried = 1
        self._place = 0
        self._spent: set[str] | None = None  # slugs not to be asked again
        self._deadline = now + policy.budget_s

    @property
    def attempts(self) -> int:
        return self._tried

    def first(self, now: float) -> Target:
        """The first healthy target; GatewayError 503 when every breaker is open."""
        breakers = self._breakers
        for place, target in enumerate(self._targets):
            if breakers.admits(target.slug, now):
                self._place = place
                return target
        wait_s = min(breakers.reopens_in_s(target.slug, now) for target in self._targets)
        names = ", ".join(target.slug for target in self._targets)
        raise GatewayError(
            f"{names} failed repeatedly and is left alone for a moment; try again later or name another model",
            status=503,
            code="capacity_exceeded",
            retryable=True,
            retry_after_s=max(1, ceil(wait_s)),
        )

    def after(self, target: Target, error: GateError, now: float, random: float) -> Step | None:
        """What to do once `target` failed with `error`: the next step, or None when the client must be told."""
        if self._tried >= self._policy.max_attempts or not isinstance(error, ProviderError):
            return None
        elsewhere = error.retryable or error.kind == "auth" or error.status == 404
        if not elsewhere:
            return None  # the request itself was refused: it would be refused again
        if not error.retryable or error.kind in ONCE_PER_TARGET:
            self._spent = (self._spent or set()) | {target.slug}
        step = self._next(target, error, now, random)
        if step is not None:
            self._tried += 1
        return step

    def _next(self, failed: Target, error: ProviderError, now: float, random: float) -> Step | None:
        count = len(self._targets)
        for offset in range(1, count + 1):
            place = (self._place + offset) % count
            target = self._targets[place]
            if self._spent and target.slug in self._spent:
                continue
            delay_s = 0.0
            if place <= self._place or target.slug == failed.slug:  # been there: wait first
                delay_s = self._delay_s(error, random)
                if now + delay_s > self._deadline:
                    continue
            elif now > self._deadline:
                return None
            if self._breakers.admits(target.slug, now):
                self._place = place
                return Step(target, delay_s)
        return None

    def _delay_s(self, error: ProviderError, random: float) -> float:
        """Retry-After where the provider gave one, else 250 ms doubled per attempt; ±20 % either way is never below Retry-After."""
        if error.retry_after_s is not None:
            return error.retry_after_s * (1 + 0.1 * random)
        base_s = self._policy.retry_base_ms / 1000 * 2 ** (self._tried - 1)
        return base_s * (0.8 + 0.4 * random)


def _resolve(slug: str, call: Call, resolve: Callable[[str, str], Target]) -> Target:
    """The target of a name, in the one of its provider's formats that can do what this call asks."""
    target = resolve(slug, call.endpoint)
    needs = target.quirks.responses
    if needs and call.endpoint == "chat" and (needs == "only" or (_has_tools(call) and is_reasoning(call, target.quirks))):
        return resolve(slug, "responses")
    return target


def _has_tools(call: Call) -> bool:
    return memoryview(call.pairs.get("tools", b"")).nbytes > len(b"null")


def plan_targets(call: Call, principal: Principal, resolve: Callable[[str, str], Target]) -> list[Target]:
    """Targets in order: the model asked for (or each of the array), then the fallbacks the caller or the catalogue names.

    Raises ClientError for a model that is unknown, not live or not allowed: the first of an array must be good, and so must
    each other name the caller gave. Siblings from the catalogue that cannot be used are passed over.
    """
    if not call.models:
        raise ClientError(
            "`model` is missing; name one as provider/model, for example \"openai/gpt-5.4\" (GET /v1/models lists them)",
            param="model",
        )
    if len(call.models) == 1 and not call.fallbacks:
        target = resolve(call.models[0], call.endpoint)
        if principal.allowed_models:
            check_allowed(principal, target.slug)
        if not target.model.fallbacks:
            return [target]
    targets: list[Target] = []
    for position, slug in enumerate(call.models + call.fallbacks):
        try:
            target = _resolve(slug, call, resolve)
            check_allowed(principal, target.slug)
        except ClientError as error:
            if position >= len(call.models):
                error.param = "fallbacks"
            raise
        if all(target.slug != other.slug for other in targets):
            targets.append(target)
    if not call.allows_fallback:
        return targets[: len(call.models)]
    if len(targets) == 1 and targets[0].model.fallbacks:
        for slug in targets[0].model.fallbacks:
            try:
                sibling = _resolve(slug, call, resolve)
                check_allowed(principal, sibling.slug)
            except ClientError:
                continue  # not live here, or not this key's: it cannot stand in
            targets.append(sibling)
    return targets
