"""How an eval reaches models: through the node's own data plane, for the key that made it, each call id at most once."""

from __future__ import annotations

import time

import msgspec

from aigate.core.call import Principal
from aigate.errors import GatewayError
from aigate.keeper.data_plane import DataPlane, InnerOptions, InnerReply, NotSent, OutcomeUnknown
from aigate.keeper.db.engine import Database
from aigate.keeper.db.fates import NEVER_SENT, UNSETTLED
from aigate.keeper.db.principals import principal_of_key


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    cost_nanousd: int
    latency_ms: int
    retry_after_s: float | None


class EvalLane:
    def __init__(self, database: Database, data_plane: DataPlane):
        self._database = database
        self._data_plane = data_plane

    async def principal(self, key_id: str) -> Principal | None:
        return await self._database.read(principal_of_key, key_id, time.time())

    async def ask_once(self, principal: Principal, path: str, body: bytes, *, call_id: str, tag: str | None) -> Answer:
        """Raises GateError where nobody can say how the call ended, or what it answered was not kept."""
        options = InnerOptions(tag=tag, must_archive=True)
        while True:
            try:
                return _answer(await self._data_plane.call(principal, path, body, call_id=call_id, options=options))
            except NotSent:
                continue
            except OutcomeUnknown:
                fate = await self._data_plane.final_fate(call_id)
            if fate.state == UNSETTLED:
                raise GatewayError("its worker died in the middle: nobody can say how this call ended", status=502)
            if fate.state != NEVER_SENT:
                raise GatewayError("it was answered before a restart, and the answer was not kept", status=502)


def _answer(reply: InnerReply) -> Answer:
    retry_after = reply.headers.get("retry-after", "")
    return Answer(reply.status, reply.body, reply.cost_nanousd or 0, reply.latency_ms, float(retry_after) if retry_after.isdigit() else None)
