"""The spine: one client call from its first byte to its last, step by step (ARCHITECTURE.md lists the steps).

It orders the steps and owns the loop over attempts and the one place where errors become replies; each step's work is in its own
module. Retry and fallback end with the first byte that reaches the client. Every attempt that got an intent is settled exactly once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import msgspec

from aigate.catalog.load import EvalNamed
from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects.dialect import Dialect
from aigate.errors import ClientError, GateError
from aigate.worker.aliases import Aliases
from aigate.worker.answer import count_fields, error_fields, reply_fields, stream_fields
from aigate.worker.attempt import Attempts, Failure
from aigate.worker.auth import KeyRing
from aigate.worker.breaker import Breakers
from aigate.worker.choices import add_up, join, makes_one, settle_all, split, split_stream
from aigate.worker.keep import Keeping
from aigate.worker.listener import Exchange
from aigate.worker.own_keys import OwnKeys
from aigate.worker.plan import Plan, Policy, plan_targets
from aigate.worker.rates import RateGate
from aigate.worker.run import CLIENT_CLOSED, Run

Handler = Callable[[Exchange], object]
Enter = Callable[[Run], Awaitable[Call]]  # a surface's own step: the call that goes on in the place of run.call


class Spine:
    """`run_call` is the whole data path. One per worker; it holds what calls share."""

    def __init__(
        self,
        *,
        ring: KeyRing,
        aliases: Aliases,
        attempts: Attempts,
        breakers: Breakers,
        policy: Policy,
        gate: RateGate,
        own_keys: OwnKeys,
    ):
        self._ring = ring
        self._resolve = aliases.resolve
        self._attempts = attempts
        self._breakers = breakers
        self._policy = policy
        self._gate = gate
        self._own_keys = own_keys
        self._aliases = aliases
        self.keeping: Keeping | None = None  # where bodies are archived
        self._now = asyncio.get_running_loop().time
        self._waiting: dict[Run, float] = {}  # streams that have not begun yet → when the client last heard of them

    async def run_call(self, exchange: Exchange, surface: Dialect, endpoint: str, enter: Enter | None = None) -> None:
        run = Run(exchange, surface, endpoint)
        try:
            inner = exchange.inner
            run.principal = principal = (
                inner.principal
                if inner is not None
                else self._ring.find(exchange) or await self._ring.authenticate(exchange.headers, self._now() + self._attempts.unix_offset_s)
            )
            run.read_headers(principal)
            if self.keeping is not None:
                self.keeping.begin(run)
            run.call = call = surface.read_call(exchange.body, endpoint, exchange)
            call.received_at = int(exchange.started_at + self._attempts.unix_offset_s)
            if inner is not None:
                call.price_variant = inner.price_variant
            if call.models:
                run.asked = call.models[0]
            if enter is not None:
                run.call = call = await enter(run)
            if call.is_stream:
                self._waiting[run] = exchange.started_at
            try:
                targets = plan_targets(call, principal, self._resolve)
            except EvalNamed:
                await self._aliases.put_in(call, principal)
                targets = plan_targets(call, principal, self._resolve)
            if self._own_keys.are_given(run, targets):
                targets = await self._own_keys.put_in(run, principal, targets)
            if principal.rates:
                await self._gate.enter(run, principal)
            if call.n > 1 and makes_one(call, targets[0]):
                await (self._stream_choices(run, targets) if call.is_stream else self._answer_choices(run, targets))
            else:
                await self._answer(run, targets)
        except GateError as error:
            self._fail(run, error)
        except msgspec.DecodeError as error:
            if run.has_ended:
                raise  # a reply that nobody foresaw; a request was read before anything was sent
            self._fail(run, _unreadable(error))
        finally:
            if self._waiting:
                self._waiting.pop(run, None)
            if run.permits:
                self._gate.leave(run)
            if exchange.shelf is not None and self.keeping is not None:
                self.keeping.end(run, self._attempts.unix_offset_s)

    async def _answer(self, run: Run, targets: list[Target]) -> None:
        """Attempts until the client has its answer, or the part that it is of one."""
        now = self._now()
        plan = None  # most calls need none
        target = targets[0]
        if not self._breakers.admits(target.slug, now):
            plan = Plan(targets, self._policy, self._breakers, now)
            target = plan.first(now)
        failure = await self._attempts.send(run, target)
        if failure is None:
            self._breakers.succeeded(target.slug)
        else:
            await self._try_on(run, failure, plan or Plan(targets, self._policy, self._breakers, now))

    async def _answer_all(self, run: Run, choices: list[Run], targets: list[Target]) -> list[BaseException | None]:
        try:
            return await asyncio.gather(*(self._answer(choice, targets) for choice in choices), return_exceptions=True)
        except asyncio.CancelledError:  # the drain is over: each has settled what came
            add_up(run, choices)
            self._attempts.end_call(run, CLIENT_CLOSED, "")
            raise

    async def _answer_choices(self, run: Run, targets: list[Target]) -> None:
        """Several choices of a target that makes one at a time. What came is what the client gets, as it is paid for; none is an error."""
        exchange, choices = run.exchange, split(run)
        results = await self._answer_all(run, choices, targets)
        problems = [result for result in results if isinstance(result, BaseException)]
        bug = next((problem for problem in problems if not isinstance(problem, GateError)), None)
        if bug is not None or len(problems) == len(choices):
            add_up(run, choices)
            raise bug or problems[0]
        reply, settlement = join(run, choices)
        self._attempts.end_call(run, CLIENT_CLOSED if exchange.is_gone else 200, "")
        if not exchange.is_gone:
            exchange.reply(200, reply_fields(run, settlement.usage), run.surface.write_reply(reply, run.asked, settlement))

    async def _stream_choices(self, run: Run, targets: list[Target]) -> None:
        """The same as one stream, begun by whichever choice is first. One that fails leaves the others to their end; then it is said."""
        exchange, (choices, merge) = run.exchange, split_stream(run)
        results = await self._answer_all(run, choices, targets)
        add_up(run, choices)
        problems = [(choice, result) for choice, result in zip(choices, results, strict=True) if isinstance(result, BaseException)]
        bug = next((problem for _, problem in problems if not isinstance(problem, GateError)), None)
        if bug is not None:
            raise bug
        if problems and not exchange.is_started:
            raise problems[0][1]
        choice, error = problems[0] if problems else (run, None)
        self._attempts.end_call(run, CLIENT_CLOSED if exchange.is_gone else 200, error.code if error else "")
        if error is not None:
            error.extra |= {"choice": choice.writer.index, "attempts": run.attempts}
            exchange.end_with(merge.rest() + merge.writer.fail(error, exchange.request_id))
        else:
            exchange.end_with(merge.rest() + merge.writer.finish(settle_all([choice.part for choice in choices if choice.part is not None])))

    async def count_tokens(
        self, exchange: Exchange, surface: Dialect, write: Callable[[int], bytes], *, endpoint: str = "chat", enter: Enter | None = None
    ) -> None:
        """How many tokens a prompt is, without a model call. `write` says it in the surface's words."""
        run = Run(exchange, surface, "count_tokens")
        try:
            principal = self._ring.find(exchange) if exchange.inner is None else exchange.inner.principal
            if principal is None:
                principal = await self._ring.authenticate(exchange.headers, self._now() + self._attempts.unix_offset_s)
            run.call = call = surface.read_call(exchange.body, "count_tokens", exchange)
            call.endpoint = endpoint  # whose targets are asked
            if enter is not None:
                run.principal = principal
                run.call = call = await enter(run)
            try:
                target = plan_targets(call, principal, self._resolve)[0]
            except EvalNamed:
                await self._aliases.put_in(call, principal)
                target = plan_targets(call, principal, self._resolve)[0]
            tokens, how = await self._attempts.count_tokens(run, target)
            exchange.reply(200, count_fields(run, how), write(tokens))
        except (GateError, msgspec.DecodeError) as problem:
            error = problem if isinstance(problem, GateError) else _unreadable(problem)
            if not exchange.is_gone:
                exchange.reply(error.status, error_fields(run, error), surface.write_error(error, exchange.request_id))

    async def _try_on(self, run: Run, failure: Failure, plan: Plan) -> None:
        """After the first attempt failed: the same target again or another, until one answers or there is none to try."""
        may_resend = may_renew = True
        while True:
            target = run.target
            now = self._now()
            if may_resend and failure.is_stale:
                may_resend = False  # an idle connection had died: the provider never saw this attempt
                self._attempts.settle(run, failure.attempt, failure.outcome)
            elif may_renew and await self._attempts.has_newer_token(failure, target):
                may_renew = False
                self._attempts.settle(run, failure.attempt, failure.outcome)
            else:
                error = failure.error
                # How a caller's own key fares says nothing of the target's health.
                self._breakers.failed(target.slug, "" if target.provider.credential_id else failure.kind, now)
                if failure.is_answered:
                    if run.parent is not None:
                        raise error  # its stream is not the whole one: that ends elsewhere
                    return
                step = None if run.exchange.is_gone else plan.after(target, error, now, random.random())
                if step is None:
                    self._give_up(run, failure)
                    return
                self._attempts.settle(run, failure.attempt, failure.outcome)
                target = step.target
                if step.delay_s:
                    await asyncio.sleep(step.delay_s)
                    if run.exchange.is_gone:
                        raise error
            result = await self._attempts.send(run, target)
            if result is None:
                self._breakers.succeeded(target.slug)
                return
            failure = result

    def _give_up(self, run: Run, failure: Failure) -> None:
        """No further attempt: the last one is settled together with the call, then the client is told."""
        error = failure.error
        if run.parent is not None:
            self._attempts.settle(run, failure.attempt, failure.outcome)
            raise error
        status = CLIENT_CLOSED if run.exchange.is_gone else error.status
        self._attempts.settle(run, failure.attempt, failure.outcome, status=status, error_code=error.code)
        self._fail(run, error)

    def _fail(self, run: Run, error: GateError) -> None:
        """Any error → the client's error shape, in-band where the stream has begun, and the call's end in the journal."""
        exchange = run.exchange
        if run.attempts and "attempts" not in error.extra:
            error.extra["attempts"] = run.attempts
        if run.principal is not None and not run.has_ended:
            self._attempts.end_call(run, CLIENT_CLOSED if exchange.is_gone else error.status, error.code)
        if exchange.is_gone:
            return
        if exchange.is_started:
            writer = run.surface.stream_writer(run.call, run.asked, exchange.request_id)
            exchange.end_with(writer.fail(error, exchange.request_id))
            return
        exchange.reply(error.status, error_fields(run, error), run.surface.write_error(error, exchange.request_id))

    def tick(self, now: float, after_s: float) -> None:
        """Each second: comments keep silent streams open, also those that have not begun (their errors then go in-band)."""
        self._attempts.tick(now, after_s)
        self._gate.tick(now)
        self._own_keys.forget_old(now)
        for run, heard_at in list(self._waiting.items()):
            exchange = run.exchange
            if exchange.is_started and exchange.on_gone is not None:  # its relay keeps it open
                continue
            if now - heard_at >= after_s and not exchange.is_gone and not exchange.is_full:
                if not exchange.is_started:
                    exchange.start(200, stream_fields(run))
                exchange.send(run.surface.stream_writer(run.call, run.asked, exchange.request_id).keep_alive())
                self._waiting[run] = now


def _unreadable(error: msgspec.DecodeError) -> ClientError:
    """What a caller sent passes as raw text until it is looked at: then a number may turn out to be none."""
    return ClientError(f"the body holds a value that cannot be read ({error}); numbers must fit 64 bits")
