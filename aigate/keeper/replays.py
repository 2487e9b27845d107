"""Replays: past calls asked of another model, one by one or as the shadow of a key's traffic. Owns which run and what they found.

A replay is a normal metered call of the key that asks for it. Its call's id is kept before it is sent, so one that a crash interrupts ends
once. Shadows follow the archive's spools, never the data path: what they cannot keep up with is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
import zlib
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from aigate.archive.records import ArchivedCall
from aigate.core.call import Principal
from aigate.core.compare import difference, similarity
from aigate.core.replay import COMPLETED, FAILED, Replay, Shadow
from aigate.errors import ClientError, GateError, GatewayError
from aigate.journal.records import CallEnd
from aigate.keeper.archive import Archive
from aigate.keeper.db import replays as queries
from aigate.keeper.db.engine import Database
from aigate.keeper.once import Answer, error_words, until_free
from aigate.keeper.replay_text import output_of, request_for
from aigate.keeper.running import Running

log = logging.getLogger("aigate.keeper")

MAX_OUTPUT_CHARS = 64_000  # of an answer, as it is kept
MAX_MIRRORED_AT_ONCE = 64
FOLLOW_S = 1.0
EXPIRE_S = 3600.0
PAUSE_S = 0.1
DAY_MS = 86_400_000
SURFACES = frozenset({"openai-chat", "openai-responses", "openai-completions", "openai-embeddings", "anthropic-messages", "gemini"})


class Lane(Protocol):
    async def principal(self, key_id: str) -> Principal | None: ...
    async def ask_once(self, principal: Principal, path: str, body: bytes, *, call_id: str, tag: str | None) -> Answer: ...


class Shipper(Protocol):
    async def catch_up(self) -> None: ...


class ReplayStore:
    def __init__(self, database: Database, *, lane: Lane, archive: Archive, shipper: Shipper, retention_days: int):
        self._database = database
        self._lane = lane
        self._archive = archive
        self._shipper = shipper
        self._retention_days = retention_days
        self._running = Running()
        self._mirroring = 0

    # --- for callers ------------------------------------------------------------------------------------------------------------

    async def source(self, account_id: str, call_id: str) -> CallEnd | None:
        """A past call of the account; None where there is none, or its sub-account was deleted."""
        await self._shipper.catch_up()
        return await self._database.read(queries.find_source, account_id, call_id)

    async def create(self, new: Replay, source: CallEnd) -> Replay:
        """Running. Raises ClientError 409 where the source's bodies are not there."""
        await self._bodies(source.call_id, source.started_ms)
        new = _identified(new)
        await self._database.write(queries.add_replays, [new])
        self._start(new)
        return new

    async def wait(self, which: Replay, limit_s: float) -> Replay:
        """As it is when it ends, or after so long."""
        await self._running.wait(which.id, limit_s)
        return await self.get(which.account_id, None, which.id) or which

    async def get(self, account_id: str, owner_id: str | None, replay_id: str) -> Replay | None:
        return await self._database.read(queries.get_replay, account_id, owner_id, replay_id)

    async def list(
        self, account_id: str, owner_id: str | None, limit: int, before_id: str | None, shadow_id: str | None
    ) -> list[Replay]:
        return await self._database.read(queries.list_replays, account_id, owner_id, limit, before_id, shadow_id)

    async def add_shadow(self, new: Shadow) -> Shadow:
        new = replace(new, id=f"shd_{new.created_ms:011x}{secrets.token_hex(6)}")
        await self._database.write(queries.add_shadow, new)
        return new

    async def shadows(self, account_id: str, owner_id: str | None, limit: int) -> Sequence[Shadow]:
        return await self._database.read(queries.list_shadows, account_id, owner_id, limit)

    async def stop_shadow(self, account_id: str, owner_id: str | None, shadow_id: str) -> Shadow | None:
        return await self._database.write(queries.stop_shadow, account_id, owner_id, shadow_id, int(time.time() * 1000))

    # --- running ----------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled: goes on with what an earlier keeper left, then follows the traffic for shadows."""
        try:
            is_taken_up, expired_at = False, 0.0
            while True:
                try:
                    if not is_taken_up:
                        for each in await self._database.read(queries.running_replays):
                            self._start(each)
                        is_taken_up = True
                    await self._mirror()
                    if time.monotonic() - expired_at > EXPIRE_S:
                        expired_at = time.monotonic()
                        while await self._database.write(queries.delete_old_replays, int(time.time() * 1000) - self._retention_days * DAY_MS):
                            await asyncio.sleep(PAUSE_S)  # so that nothing else waits
                except (SQLAlchemyError, OSError) as error:
                    log.error("replays: %s", type(error).__name__)
                await asyncio.sleep(FOLLOW_S)
        finally:
            await self._running.cancel()

    def _start(self, replay: Replay) -> None:
        if replay.id not in self._running:
            self._mirroring += replay.shadow_id is not None
            self._running.start(replay.id, self._run(replay))

    async def _run(self, replay: Replay) -> None:
        try:
            try:
                found = await self._compare(replay)
            except GateError as error:
                found = {"status": FAILED, "error": error.message[:1000]}
            except Exception as error:  # noqa: BLE001  a bug of ours: it must not leave a replay that never ends
                log.error("replay %s: %s", replay.id, type(error).__name__, exc_info=error)
                found = {"status": FAILED, "error": "an error of the gateway's own; its log says more"}
            await self._database.write(queries.end_replay, replay.id, {**found, "ended_ms": int(time.time() * 1000)})
        except SQLAlchemyError as error:
            log.error("replay %s waits for the next start: %s", replay.id, type(error).__name__)
        finally:
            self._mirroring -= replay.shadow_id is not None

    async def _compare(self, replay: Replay) -> dict[str, Any]:
        """What changes of a replay that has its answer. Raises GateError where it has none."""
        source = await self._bodies(replay.source_request_id, replay.source_started_ms)
        principal = await self._lane.principal(replay.key_id)
        if principal is None:
            raise GatewayError("the key of this replay was revoked")
        path, body = request_for(source, replay.target_model)
        _, answer = await until_free(
            lambda number: self._lane.ask_once(principal, path, body, call_id=f"{replay.call_id}{number}", tag=replay.tag)
        )
        if answer.status != 200:
            raise GatewayError(f"{answer.status}: {error_words(answer.body)}")
        given = output_of(source.surface, answer.body, is_stream=False)
        before = output_of(source.surface, source.reply, is_stream=source.is_stream) if source.status == 200 else None
        found: dict[str, Any] = {
            "status": COMPLETED,
            "target_cost_nanousd": answer.cost_nanousd,
            "target_latency_ms": answer.latency_ms,
            "target_output": given.shown()[:MAX_OUTPUT_CHARS],
        }
        if before is not None:
            score, diff = await asyncio.to_thread(lambda: (similarity(before, given), difference(before, given)))
            found |= {"source_output": before.shown()[:MAX_OUTPUT_CHARS], "score": score, "diff": diff}
        return found

    async def _bodies(self, call_id: str, started_ms: int) -> ArchivedCall:
        found = await self._archive.find(call_id, started_ms)
        if found is None or found.is_ours:
            words = "its bodies are not kept: archiving was off for it, or they are older than its retention"
        elif found.is_cut:
            words = "its request or reply was larger than is kept (archive.max_body_bytes)"
        elif found.surface not in SURFACES:
            words = f"calls of {found.endpoint} cannot be sent again"
        else:
            return found
        raise ClientError(f"source_request_id: {call_id} cannot be replayed: {words}.", status=409, code="not_archived", param="source_request_id")

    # --- shadows ----------------------------------------------------------------------------------------------------------------

    async def _mirror(self) -> None:
        active = await self._database.read(queries.active_shadows, int(time.time() * 1000))
        ended = await self._archive.follow(bool(active))
        for shadow in active:
            wanted = [call for call in ended if _is_wanted(shadow, call)]
            room = min(MAX_MIRRORED_AT_ONCE - self._mirroring, shadow.max_calls - shadow.mirrored)
            taken = wanted[: max(0, room)]
            if not wanted:
                continue
            new = {each.id: each for each in (_identified(_replay_of(shadow, call)) for call in taken)}
            added = await self._database.write(queries.add_replays, list(new.values()))
            await self._database.write(queries.count_mirrored, shadow.id, len(added), len(wanted) - len(taken))
            for replay_id in added:
                self._start(await self._with_costs(new[replay_id]))

    async def _with_costs(self, replay: Replay) -> Replay:
        """The source's cost and latency are the ledger's."""
        source = await self.source(replay.account_id, replay.source_request_id)
        if source is None:
            return replay
        known = {"source_cost_nanousd": source.cost_nanousd, "source_latency_ms": source.latency_ms}
        await self._database.write(queries.end_replay, replay.id, known)
        return replace(replay, **known)


def _identified(new: Replay) -> Replay:
    """Ids that rise with time; the call's is kept before it is sent."""
    mark = f"{int(time.time() * 1000):011x}{secrets.token_hex(6)}"
    return replace(new, id=f"rpl_{mark}", call_id=f"req_{mark}d")


def _is_wanted(shadow: Shadow, call: ArchivedCall) -> bool:
    is_its = call.key_id == shadow.watched_key_id and call.account_id == shadow.account_id and call.started_ms >= shadow.created_ms
    can_be = call.status == 200 and not (call.is_inner or call.is_cut or call.is_ours) and call.surface in SURFACES
    return is_its and can_be and zlib.crc32(call.call_id.encode()) < shadow.share * 2**32


def _replay_of(shadow: Shadow, call: ArchivedCall) -> Replay:
    return Replay(
        id="",
        account_id=shadow.account_id,
        owner_id=shadow.owner_id,
        key_id=shadow.key_id,
        sub_account_id=shadow.sub_account_id,
        tag=shadow.tag,
        shadow_id=shadow.id,
        source_request_id=call.call_id,
        source_model=call.served_by or call.asked_model,
        target_model=shadow.target_model,
        call_id="",
        source_started_ms=call.started_ms,
        source_cost_nanousd=0,
        source_latency_ms=0,
        created_ms=int(time.time() * 1000),
    )
