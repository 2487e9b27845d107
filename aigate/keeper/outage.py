"""For work that nobody waits for, and that must come to its end: waits until the database is back, and says where a bug was."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError

log = logging.getLogger("aigate.keeper")

FIRST_DELAY_S, LAST_DELAY_S = 0.2, 10.0

P = ParamSpec("P")
T = TypeVar("T")


async def patiently(work: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
    """`work` again and again, while it fails for an outage of the database."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            return await work(*args, **kwargs)
        except (OperationalError, InterfaceError) as error:
            log.warning("work waits for the database: %s", type(error).__name__)
        await asyncio.sleep(delay_s)
        delay_s = min(delay_s * 2, LAST_DELAY_S)


def place_of(error: BaseException) -> str:
    """The kind of an exception and where it came from; not its words, which may hold what a caller sent."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
