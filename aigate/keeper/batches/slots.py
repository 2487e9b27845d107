"""So many things at once, shared fairly: what becomes free goes to whom of those that wait has the fewest. In memory."""

from __future__ import annotations

import asyncio
from collections import Counter, deque


class Slots:
    def __init__(self, total: int):
        self._free = total
        self._taken: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def take(self, owner: str) -> None:
        if self._free:
            self._free -= 1
            self._taken[owner] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give(owner)  # it had come just before
            else:
                self._forget(owner, turn)
            raise

    def give(self, owner: str) -> None:
        self._taken[owner] -= 1
        if not self._taken[owner]:
            del self._taken[owner]
        if not self._waiting:
            self._free += 1
            return
        next_owner = min(self._waiting, key=lambda each: self._taken[each])
        turn = self._waiting[next_owner][0]
        self._forget(next_owner, turn)
        self._taken[next_owner] += 1
        turn.set_result(None)

    def _forget(self, owner: str, turn: asyncio.Future[None]) -> None:
        turns = self._waiting.pop(owner)
        turns.remove(turn)
        if turns:
            self._waiting[owner] = turns  # behind those that have as many
