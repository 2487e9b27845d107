"""Drive: runs a handler's coroutine to its end. What an asyncio.Task does for it, less what the data path has no use for.

A Task costs about 3 us a call (its registration in a weak set, the running-task bookkeeping, a context); a handler needs only to be
resumed when what it awaits is done, and to be cancelled at the end of a drain. Code that asks for the current task (asyncio.timeout)
must run in a Task of its own, awaited from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Subject = TypeVar("Subject")


class Drive(Generic[Subject]):
    """Runs from `resume` on. `on_end(subject, problem)` is called once, with what the coroutine raised or None."""

    __slots__ = ("_coroutine", "_loop", "_on_end", "_subject", "_awaited", "_is_cancelled", "_ended")

    def __init__(
        self,
        coroutine: Coroutine[Any, None, None],
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[Subject, BaseException | None], None],
        subject: Subject,
    ):
        self._coroutine = coroutine
        self._loop = loop
        self._on_end = on_end
        self._subject = subject
        self._awaited: asyncio.Future[Any] | None = None
        self._ended: asyncio.Future[None] | None = None
        self._is_cancelled = False

    def cancel(self) -> asyncio.Future[None]:
        """Raises CancelledError where the coroutine stands, soon; the future resolves when it has ended."""
        if self._ended is None:
            self._ended = self._loop.create_future()
        self._is_cancelled = True
        if self._awaited is not None:
            self._awaited.cancel()
        return self._ended

    def resume(self, _: object = None) -> None:
        """On to the next wait. Also called by whatever was awaited, when it is done."""
        self._awaited = None
        try:
            if self._is_cancelled:
                self._is_cancelled = False
                awaited = self._coroutine.throw(asyncio.CancelledError())
            else:
                awaited = self._coroutine.send(None)
        except StopIteration:
            self._end(None)
        except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - whoever is told on the end is the boundary
            self._end(problem)
        else:
            if awaited is None:  # a bare yield: asyncio.sleep(0)
                self._loop.call_soon(self.resume)
                return
            self._awaited = awaited
            awaited._asyncio_future_blocking = False  # how a future knows that it was awaited and not merely yielded
            awaited.add_done_callback(self.resume)
            if self._is_cancelled:
                awaited.cancel()

    def _end(self, problem: BaseException | None) -> None:
        if self._ended is not None:
            self._ended.set_result(None)
        self._on_end(self._subject, problem)
