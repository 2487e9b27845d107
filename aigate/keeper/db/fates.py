"""What the ledger says became of one call."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from aigate.keeper.db.tables import attempts, calls

ENDED = "ended"  # it has its row; the reply may be in the archive
RUNNING = "running"  # or nobody can say yet: ask again
UNSETTLED = "unsettled"  # sent, and its worker died: nobody will know how it ended
NEVER_SENT = "never_sent"  # and will not begin, unless it is sent again


class Fate(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers are those of an ended call. Of an unsettled one `cost_nanousd` is what earlier attempts of it cost."""

    state: str
    status: int = 0
    error_code: str = ""
    served_by: str = ""
    cost_nanousd: int = 0
    started_ms: int = 0
    latency_ms: int = 0


def read_fate(connection: Connection, call_id: str) -> Fate | None:
    """None: the ledger has nothing of it."""
    call = connection.execute(select(calls).where(calls.c.call_id == call_id)).one_or_none()
    if call is not None:
        return Fate(
            state=ENDED,
            status=call.status,
            error_code=call.error_code,
            served_by=call.served_by,
            cost_nanousd=call.cost_nanousd,
            started_ms=call.started_ms,
            latency_ms=call.latency_ms,
        )
    costs = connection.execute(select(attempts.c.cost_nanousd).where(attempts.c.call_id == call_id)).scalars().all()
    return Fate(state=UNSETTLED, cost_nanousd=sum(costs)) if costs else None
