"""Responses with `background: true`: kept as begun, answered as soon as they are sent to a provider, and run to their end without their caller.

They are asked for as streams, whatever the caller gets: so silence is bounded, not their length. A cancelled one ends as one does whose client
left. What this worker had running when it ended the keeper calls failed (dialects/openai_responses_background.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from aigate.core.call import Call
from aigate.core.warnings import warning_header
from aigate.dialects.dialect import Dialect
from aigate.dialects.openai_responses_background import begun, ended, read_problem, shown, stopped
from aigate.errors import GatewayError
from aigate.messages import CancelResponse
from aigate.worker.heads import FieldBlock, Fields
from aigate.worker.kept import KeptResponses
from aigate.worker.link import KeeperLink
from aigate.worker.listener import Exchange
from aigate.worker.run import Run
from aigate.worker.spine import Spine
from aigate.worker.tape import Shelf, Tape

Answer = tuple[int, Fields | FieldBlock, bytes]

_NAME = b'"background"'
_ENDED = {"code": "server_error", "message": "the gateway was stopped before the response had ended; send it again"}


class _Look(msgspec.Struct):
    background: bool | None = None


_look = msgspec.json.Decoder(_Look).decode


class Detached:
    """Stands for the exchange (worker/listener.Exchange) of a call whose client does not wait. What would be sent to it is dropped."""

    is_full = False

    def __init__(self, exchange: Exchange, answer: asyncio.Future[Answer]):
        self.head, self.request_id = exchange.head, exchange.request_id
        self.inner = None  # what the gateway asks for itself is waited for
        self.status = 0
        self.shelf: Shelf | None = None
        self.tape: Tape | None = None
        self.whole = b""
        self.method, self.path, self.query = exchange.method, exchange.path, exchange.query
        self.headers, self.body, self.started_at = exchange.headers, exchange.body, exchange.started_at
        self.is_gone = self.is_started = self.is_ended = False
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.answer = answer  # what the client gets: the response as it has begun, or why it has not
        self.key = ("", "", "resp_" + exchange.request_id[4:])  # account, owner, id of the response
        self.kept_body = b""  # as begun; "" = nothing is kept yet
        self.is_kept = False  # its end is
        self.last = b""  # the end of what was to be sent

    def reply(self, status: int, fields: Fields | FieldBlock, body: bytes) -> None:
        self.is_started = self.is_ended = True
        self.status = status
        self.whole = self.last = body
        self.tell((status, fields, body))

    def tell(self, answer: Answer) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)

    def start(self, status: int, fields: Fields | FieldBlock) -> None:
        self.is_started = True
        self.status = status
        if self.shelf is not None:
            self.tape = Tape(self.shelf)

    def send(self, data: bytes) -> None:
        """It is the end that is kept, and the end holds everything."""
        self._record(data)

    def end_with(self, data: bytes) -> None:
        self.is_ended = True
        self._record(data)
        self.last = data

    def _record(self, data: bytes) -> None:
        if self.tape is not None:
            self.tape.add(data)

    def abort(self) -> None:
        self.is_ended = True

    def leave(self) -> None:
        """As if a client had: the call ends as its provider's ways with that are."""
        if not self.is_gone and not self.is_ended:
            self.is_gone = True
            if self.on_gone is not None:
                self.on_gone()


class Background:
    def __init__(self, spine: Spine, kept: KeptResponses, link: KeeperLink, surface: Dialect, run_by: str):
        self._spine = spine
        self._kept = kept
        self._surface = surface
        self._run_by = run_by
        self._loop = asyncio.get_running_loop()
        self._running: dict[tuple[str, str, str], Detached] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        link.handlers[CancelResponse] = self._cancel

    async def respond(self, exchange: Exchange) -> None:
        """POST /v1/responses, whether it is to run in the background or not."""
        if _NAME not in exchange.body or not _is_wanted(exchange.body):
            await self._spine.run_call(exchange, self._surface, "responses", self._kept.enter)
            return
        detached = Detached(exchange, self._loop.create_future())
        task = self._loop.create_task(self._run(detached))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        exchange.reply(*await asyncio.shield(detached.answer))

    async def drain(self, timeout_s: float) -> None:
        """Lets what runs come to its end; what has not by then is stopped, and said to have failed."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, detached: Detached) -> None:
        try:
            await self._spine.run_call(detached, self._surface, "responses", self._enter)  # type: ignore[arg-type]
        except asyncio.CancelledError:
            detached.last = b""
        except Exception as problem:  # noqa: BLE001 - a bug of ours must cost one response, not the worker
            self._loop.call_exception_handler({"message": f"handler failed on {detached.request_id}", "exception": problem})
            error = GatewayError("internal error: the gateway's log has it under this request id")
            fields = [(b"content-type", b"application/json"), (b"x-request-id", detached.request_id.encode())]
            detached.reply(error.status, fields, self._surface.write_error(error, detached.request_id))
        finally:
            self._running.pop(detached.key, None)
            if detached.kept_body and not detached.is_kept and not detached.is_gone:
                self._end(detached, stopped(detached.kept_body, "failed", read_problem(detached.last) or _ENDED))
            detached.answer.cancel()  # unless it was given: then nobody waits

    async def _enter(self, run: Run) -> Call:
        """Begins the response at the keeper, before anything is sent: who has its id will find it."""
        detached: Detached = run.exchange  # type: ignore[assignment]
        entered = await self._kept.enter(run)
        pairs = {**entered.pairs, "stream": Raw(b"true")}
        pairs.pop("background", None)
        body = begun(entered, detached.key[2], self._run_by)
        detached.key = await self._kept.begin(run, body, detached.key[2])
        detached.kept_body = body
        self._running[detached.key] = detached
        run.keep = partial(self._finished, detached)
        run.on_sent = partial(self._sent, detached, run)
        return replace(entered, pairs=pairs, is_stream=True)

    def _sent(self, detached: Detached, run: Run) -> None:
        fields = [(b"content-type", b"application/json"), (b"x-request-id", detached.request_id.encode())]
        if run.warnings:
            fields.append((b"x-aig-warning", warning_header(run.warnings).encode()))
        detached.tell((200, fields, shown(detached.kept_body)))

    def _finished(self, detached: Detached, sent: bytes) -> None:
        try:
            self._end(detached, ended(sent, detached.key[2]))
        except ValueError:  # also msgspec's: what came is no response
            detached.last = b'{"error":{"code":"server_error","message":"the provider\'s response cannot be read"}}'

    def _end(self, detached: Detached, body: bytes) -> None:
        detached.is_kept = True
        if not self._kept.end(detached.key, body):
            error = {"code": "server_error", "message": "the response is too large to be kept"}
            self._kept.end(detached.key, stopped(detached.kept_body, "failed", error))

    def _cancel(self, message: CancelResponse) -> None:
        detached = self._running.get((message.account_id, message.owner_id, message.response_id))
        if detached is not None:
            detached.leave()


def _is_wanted(body: bytes) -> bool:
    try:
        return _look(body).background is True
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False  # whatever is wrong with it is told in the foreground
