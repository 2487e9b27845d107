"""admit: the money of an attempt is set aside before anything is sent, or its caller is told why not. Step 5 of the data path.

Owns the talk with the keeper about money: grants, recalls, limits. What a slice or a hold is, the wallet knows (core/wallet.py); what
the keeper must hear of for good goes to the journal first. Near a limit the call's maximum is lowered to what fits (`clamp`); the
keeper offers nothing to fit into where the budget is `hard`.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from time import gmtime, strftime

import msgspec

from aigate.core.bounds import hold_nanousd, input_bound, max_output_tokens
from aigate.core.budget import Lease, Owner
from aigate.core.call import Attempt, Warning
from aigate.core.edits import Edit, set_max_output_tokens
from aigate.core.params import MAX_OUTPUT_TOKENS
from aigate.core.refusal import owners_of, refusal
from aigate.core.target import Target
from aigate.core.wallet import Ask, Hold, Shortage, Wallet
from aigate.errors import ledger_unavailable
from aigate.journal.records import ADOPTED, MAX_LEASES, RESTATED, RETURNED
from aigate.journal.writer import JournalWriter
from aigate.messages import Ack, Grant, Granted, Hello, Limits, Recall, Refused, Welcome
from aigate.worker.link import KeeperLink
from aigate.worker.run import Run
from aigate.worker.settle import hold_price

WAIT_S = 2.0  # for the keeper's word on one attempt
SWEEP_S = 10.0  # slices unused for so long go back
FLOOR_TOKENS, REASONING_FLOOR_TOKENS = 256, 2_048  # no maximum is lowered below
MAX_RAISE = 10_000  # thousandths: a nonsensical bill must not shut a model off for good


_UNTOLD: dict[Owner, int] = {("", "", ""): 0}


class Admission:
    """One per worker; takes over the words of money on `link`. `limits`: owners whose limit a principal may not know of; empty in most
    gateways, so that a call without budgets pays a test for it and no more. Until the keeper has told them it is not: all calls are
    admitted then, that is, they wait. `unlimited`: attempts that run without a hold, for a limit that comes while they do. `raised`: models
    that cost more than was held → what their bounds are multiplied by since, in thousandths; each worker learns it for itself."""

    def __init__(self, *, link: KeeperLink, journal: JournalWriter, default_max_output_tokens: int, loop: asyncio.AbstractEventLoop):
        self.unlimited: dict[str, tuple[Run, Attempt]] = {}
        self.raised: dict[str, int] = {}
        self._wallet = Wallet()
        self.limits: dict[Owner, int] = _UNTOLD
        self._told: asyncio.Future[None] = loop.create_future()
        self._link = link
        self._journal = journal
        self._hello = link.hello()
        link.hello = self.hello
        link.on_opened.append(self._opened)
        link.handlers |= {
            Granted: self._granted, Refused: self._refused, Recall: self._recall, Limits: self._limit, Welcome: self._welcome,
        }  # fmt: skip
        self._default_max_output_tokens = default_max_output_tokens
        self._loop = loop
        self._now = loop.time
        self._is_welcome = False  # this connection's keeper has answered our Hello
        self._answers: dict[int, asyncio.Future[Hold | Shortage | Refused | None]] = {}
        self._swept_at = loop.time()
        self._untaken: list[Limits | Welcome] = []  # words that wait for room in the journal
        self._owed: list[Lease] = []  # RETURNED, as soon as there is room
        self.month = strftime("%Y-%m", gmtime())  # what a sending counts in where no lease says it

    async def told(self) -> None:
        """Returns once the keeper has told the limits: from then on calls go on without it."""
        await asyncio.shield(self._told)

    # --- the data path ----------------------------------------------------------------------------------------------------------

    async def admit(self, run: Run, attempt: Attempt, target: Target, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
        """Holds what the attempt may cost on all its budgets. The edits with the maximum that the hold stands on, always stated: else it
        would be our wish only. Raises 402, or 503 where the keeper cannot be asked."""
        principal, call = run.principal, run.call
        assert principal is not None and call is not None
        if self.limits is _UNTOLD:
            await self._hear_limits()
            if not principal.budgets and not self.limits:
                self.unlimited[attempt.id] = run, attempt
                return edits
        owners = owners_of(principal, run.tag)
        hold = self._wallet.hold(owners, principal.budgets, attempt.hold_nanousd)
        clamped = None
        if type(hold) is Shortage:
            hold, clamped = await self._obtain(run, target, hold)
        attempt.hold = hold
        attempt.hold_nanousd = hold.amount
        if self._wallet.thirsty:
            self._refill()
        if not hold.slices or not is_bounded(run, target):
            return edits
        if clamped is not None:
            run.warnings += (Warning("clamped", _maximum_key(run), "budget", call.max_output_tokens, clamped),)
        elif call.max_output_tokens is not None:
            return edits
        return (*edits, set_max_output_tokens(clamped or max_output_tokens(call, target, self._default_max_output_tokens), target))

    def enter(self, attempt: Attempt) -> None:
        """Directly before its intent: the month that it counts in."""
        attempt.window = self.month if attempt.hold is None else attempt.hold.enter(self.month)

    def settle(self, attempt: Attempt, cost_nanousd: int) -> tuple[Lease, ...]:
        """The charges for the settled record."""
        if attempt.hold is not None:
            return self._wallet.settle(attempt.hold, cost_nanousd)
        self.unlimited.pop(attempt.id, None)
        return ()

    def note_overrun(self, target: Target, held: int, cost: int) -> None:
        self.raised[target.slug] = min(-(-self.raised.get(target.slug, 1000) * cost // held), MAX_RAISE)

    def raise_bound(self, target: Target, hold: int) -> int:
        return -(-hold * self.raised.get(target.slug, 1000) // 1000)

    def withdraw(self, attempt: Attempt) -> None:
        """Not sent, and no intent of it written."""
        self.unlimited.pop(attempt.id, None)
        if attempt.hold is not None:
            self._return(self._wallet.release(attempt.hold))

    def tick(self, now: float, unix_offset_s: float) -> None:
        """Each second."""
        self.month = strftime("%Y-%m", gmtime(now + unix_offset_s))
        if now - self._swept_at >= SWEEP_S:
            self._swept_at = now
            self._return(self._wallet.sweep(self._now_ms()))
            self._refill()
        self._write_owed()
        untaken, self._untaken = self._untaken, []
        for message in untaken:
            self._link.handlers[type(message)](message)

    # --- where the slices do not suffice ----------------------------------------------------------------------------------------

    async def _obtain(self, run: Run, target: Target, shortage: Shortage) -> tuple[Hold, int | None]:
        """The hold, and the maximum of output tokens that it was lowered to, if it was."""
        deadline = self._now() + WAIT_S
        clamped = None
        while True:
            answer = await self._ask(shortage, deadline)
            if type(answer) is Refused:
                if answer.reason == "unavailable":
                    raise _no_word()
                fitted = self._fit(run, target, answer.available)
                if fitted is None:
                    raise refusal(answer)
                clamped, amount = fitted
                answer = self._wallet.hold(shortage.owners, shortage.path, amount)
            if type(answer) is Hold:
                return answer, clamped
            if type(answer) is Shortage:
                shortage = answer

    async def _ask(self, shortage: Shortage, deadline: float) -> Hold | Shortage | Refused | None:
        """None: the question is void, ask again."""
        now = self._now()
        if now >= deadline or self._link.is_away(now):
            raise _no_word()
        ask = self._wallet.ask(shortage, self._now_ms())
        future = self._answers[ask.number] = self._loop.create_future()
        if self._is_welcome:
            self._send(ask)
        await asyncio.wait((future,), timeout=deadline - now)
        if not future.done():
            del self._answers[ask.number]
            self._wallet.abandon(ask.number)
            raise _no_word()
        return future.result()

    def _fit(self, run: Run, target: Target, available: int) -> tuple[int, int] | None:
        """(output tokens of a choice, their hold) at most what is available; None where that is below the floor, or not ours to change."""
        call = run.call
        assert call is not None
        price = target.model.price and hold_price(call, target.model.price)
        if price is None or run.is_strict or not is_bounded(run, target):
            return None
        floor = FLOOR_TOKENS
        if target.model.is_reasoning:
            floor = call.thinking_budget or REASONING_FLOOR_TOKENS
        input_tokens, choices = input_bound(call, target), max(call.n, 1)

        def amount(tokens: int) -> int:
            return self.raise_bound(target, hold_nanousd(price, input_tokens, tokens * choices))

        lower = range(floor, max_output_tokens(call, target, self._default_max_output_tokens))
        fitting = bisect_right(lower, available, key=amount)
        return (lower[fitting - 1], amount(lower[fitting - 1])) if fitting else None

    async def _hear_limits(self) -> None:
        """A worker that has just begun: who is limited is not known yet."""
        if not self._link.is_away(self._now()):
            await asyncio.wait((self._told,), timeout=WAIT_S)
        if self.limits is _UNTOLD:
            raise _no_word()

    def _refill(self) -> None:
        if self._is_welcome:
            self._send(self._wallet.refill(self._now_ms()))

    def _send(self, ask: Ask | None) -> None:
        if ask is not None:
            self._link.send(Grant(ask.number, ask.wants, self._wallet.seq, self._wallet.answered))

    # --- the keeper's words -----------------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        wallet = self._wallet
        return msgspec.structs.replace(self._hello, grant_seq=wallet.seq, limits_version=wallet.limits_version)

    def _opened(self) -> None:
        """A new connection: nothing may be asked before its Welcome. What was not taken is said again."""
        self._is_welcome = False
        self._untaken.clear()

    def _granted(self, message: Granted) -> None:
        answer, returned = self._wallet.granted(message.number, message.seq, message.leases, message.tight)
        self._return(returned)
        self._answer(message.number, answer)

    def _refused(self, message: Refused) -> None:
        self._wallet.refused(message.number)
        self._answer(message.number, message)

    def _recall(self, message: Recall) -> None:
        returned = self._wallet.retire(message.budget_ids)
        if message.before:
            returned += self._wallet.retire_before(message.before)
        if self._return(returned):
            self._link.send(Ack(message.number))

    def _answer(self, number: int, answer: Hold | Shortage | Refused | None) -> None:
        future = self._answers.pop(number, None)
        if future is not None:
            future.set_result(answer)

    def _welcome(self, message: Welcome) -> None:
        if not message.is_restored:
            self._is_welcome = True
            self.limits = self._wallet.limits  # they were told before the welcome
            if not self._told.done():
                self._told.set_result(None)
            for ask in self._wallet.unanswered():
                self._send(ask)
            return
        if not self._journal.move_leases(RESTATED, self._wallet.to_restate()):
            self._untaken.append(message)
            return
        self._wallet.restate()
        self._owed.clear()
        for number in list(self._answers):
            self._answer(number, None)
        self._link.send(self.hello())

    def _limit(self, message: Limits) -> None:
        """In force once acknowledged: from here on every hold counts on it, those that run included. Without room in the journal
        for what they hold it is as if the message had not come yet, nor any after it."""
        if message.changes:
            for run, attempt in self.unlimited.values():
                self._track(run, attempt)
            self.unlimited.clear()
        adopted = self._wallet.to_adopt(message.changes)
        if self._untaken or (adopted and not self._journal.move_leases(ADOPTED, adopted)):
            self._untaken.append(message)
            return
        self._return(self._wallet.change_limits(message.version, message.changes, message.is_reset))
        self._link.send(Ack(message.number))

    def _track(self, run: Run, attempt: Attempt) -> None:
        """A hold on nothing, so that a limit finds it."""
        assert run.principal is not None
        hold = self._wallet.hold(owners_of(run.principal, run.tag), (), attempt.hold_nanousd)
        assert type(hold) is Hold  # nothing has a limit yet, else the attempt had been admitted on it
        hold.window = attempt.window
        attempt.hold = hold

    def _return(self, leases: tuple[Lease, ...]) -> bool:
        self._owed += leases
        return self._write_owed()

    def _write_owed(self) -> bool:
        """What is not written stays leased, which is safe. A record at a time: none may be written twice."""
        while self._owed:
            if not self._journal.move_leases(RETURNED, self._owed[:MAX_LEASES]):
                return False
            del self._owed[:MAX_LEASES]
        return True

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def is_bounded(run: Run, target: Target) -> bool:
    """Whether a maximum of output tokens can be stated."""
    return target.endpoint not in ("embeddings", "compact") and MAX_OUTPUT_TOKENS not in target.quirks.unsupported


def _maximum_key(run: Run) -> str:
    """As the caller spelt it."""
    assert run.call is not None
    spelt = (key for key in run.call.pairs if run.surface.params.get(key) == MAX_OUTPUT_TOKENS)
    return next(spelt, "max_tokens")


def _no_word() -> Exception:
    return ledger_unavailable("The budget cannot be checked: the ledger does not answer. Nothing was sent; retry shortly.")
