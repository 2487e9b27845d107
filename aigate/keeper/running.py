"""Work in the background, one task an id, and who waits for its end. What it does and how it fails is the work's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine


class Running:
    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def __contains__(self, work_id: str) -> bool:
        return work_id in self._tasks

    def start(self, work_id: str, work: Coroutine[None, None, None]) -> None:
        self._tasks[work_id] = task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(work_id))

    async def wait(self, work_id: str, limit_s: float) -> None:
        """Until it has ended, or for so long."""
        task = self._tasks.get(work_id)
        if task is not None:
            await asyncio.wait((task,), timeout=limit_s)

    async def cancel(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
