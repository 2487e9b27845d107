"""`eval:<id>` as a model: the winner of an eval, asked of the keeper once and remembered, as it never changes. Shell.

Off the common path: only a name the catalogue does not know leads here (catalog/load.py EvalNamed).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aigate.core.account import tenant_of
from aigate.core.call import Call, Principal
from aigate.core.evals import ALIAS, COMPLETED, RUNNING
from aigate.core.target import Target
from aigate.errors import ClientError, model_not_found
from aigate.messages import FindEval, FoundEval
from aigate.worker.link import KeeperLink
from aigate.worker.questions import WAIT_S, Questions

MAX_KNOWN = 10_000
MAX_ID_CHARS = 64

_Which = tuple[str, str, str]  # account, owner, eval id


class Aliases:
    """Takes over the keeper's FoundEval on `link`. `resolve`: a name and an endpoint → the target; raises EvalNamed for what leads here."""

    def __init__(self, resolve: Callable[[str, str], Target], link: KeeperLink, loop: asyncio.AbstractEventLoop, *, wait_s: float = WAIT_S):
        self.resolve = resolve
        self._winners: dict[_Which, str] = {}
        self._questions = Questions(link, loop, wait_s=wait_s)
        link.handlers[FoundEval] = self._questions.answer

    async def put_in(self, call: Call, principal: Principal) -> None:
        """Winners in the place of the evals that `call` names. Raises ClientError where one cannot be used, 503 where nobody answers."""
        call.models = tuple([await self._model(name, principal) for name in call.models])
        call.fallbacks = tuple([await self._model(name, principal) for name in call.fallbacks])

    async def _model(self, name: str, principal: Principal) -> str:
        if not name.startswith(ALIAS):
            return name
        which = (*tenant_of(principal), name.removeprefix(ALIAS))
        winner = self._winners.get(which)
        if winner is None:
            winner = _winner(name, await self._ask(which) if len(which[2]) <= MAX_ID_CHARS else FoundEval(0))
            if len(self._winners) >= MAX_KNOWN:
                self._winners.clear()
            self._winners[which] = winner
        return winner

    async def _ask(self, which: _Which) -> FoundEval:
        return await self._questions.ask(FindEval(self._questions.next_number(), *which), "The winner of the eval cannot be looked up")


def _winner(name: str, found: FoundEval) -> str:
    if found.status == COMPLETED:
        return found.winner
    if not found.status:
        raise model_not_found(f"{name[:80]!r} is no eval of yours; GET /v1/evals lists them")
    eval_id = name.removeprefix(ALIAS)
    if found.status == RUNNING:
        words = f"{name!r} has no winner yet: the eval is running; GET /v1/evals/{eval_id} says how far it is"
        raise ClientError(words, status=409, code="eval_running", param="model", retryable=True, retry_after_s=5)
    raise ClientError(f"{name!r} has no winner: the eval failed ({found.error}); name a model instead", status=409, code="eval_failed", param="model")
