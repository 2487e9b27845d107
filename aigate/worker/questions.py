"""Questions to the keeper that a call waits for: said again to the next keeper, and a 503 where no answer comes in time. Shell."""

from __future__ import annotations

import asyncio
from typing import Any

from aigate.errors import GatewayError
from aigate.messages import Message
from aigate.worker.link import KeeperLink

WAIT_S = 2.0


class Questions:
    """Questions and answers bear the same `number`, from `next_number`. Whoever asks hands the keeper's answers over (`answer`)."""

    def __init__(self, link: KeeperLink, loop: asyncio.AbstractEventLoop, *, wait_s: float = WAIT_S):
        self._link = link
        self._loop = loop
        self._wait_s = wait_s
        self._number = 0
        self._open: dict[int, tuple[Any, asyncio.Future[Any]]] = {}
        link.on_opened.append(self._say_again)

    def next_number(self) -> int:
        self._number += 1
        return self._number

    async def ask(self, question: Message, without: str) -> Any:
        """`without`: for the caller, what does not come to pass without an answer."""
        answer = self._loop.create_future()
        self._open[question.number] = question, answer  # type: ignore[union-attr]
        self._link.send(question)
        try:
            await asyncio.wait((answer,), timeout=self._wait_s)
        finally:
            del self._open[question.number]  # type: ignore[union-attr]
        if not answer.done():
            words = f"{without}: the keeper does not answer."
            raise GatewayError(words, status=503, code="capacity_exceeded", retryable=True, retry_after_s=1)
        return answer.result()

    def answer(self, message: Any) -> Any:
        """The question of it; None where nobody waits for this answer any more."""
        question, answer = self._open.get(message.number, (None, None))
        if answer is None or answer.done():
            return None
        answer.set_result(message)
        return question

    def _say_again(self) -> None:
        for question, _ in self._open.values():
            self._link.send(question)
