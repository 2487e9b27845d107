"""The simulated provider: its endpoints, its bill, what it remembers of requests. Replies are written in replies.py, sent by play.py."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple, TypeVar

import msgspec

from aigate.core.words import count_words
from aigate.sim.answers import MAX_CHOICES, Answers, ChatRequest, answer, embed
from aigate.sim.behaviours import MAX_TOKENS, Behaviour, UnknownBehaviour, read_behaviour
from aigate.sim.bill import Bill, Row
from aigate.sim.media import MediaService
from aigate.sim.play import EXTRA, Reply, head, play
from aigate.sim.replies import (
    Identity,
    asks_usage,
    encode,
    error_body,
    halves,
    model_list,
    plain_body,
    refusal,
    stream_pieces,
)
from aigate.sim.server import Connection, Request

JSON = "application/json"
MAX_DIMENSIONS = 4096
MAX_PROMPTS_REMEMBERED = 10_000  # of those that fail a few times and then answer


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: int = 256
    encoding_format: str = "float"


class _Refused(Exception):
    """The request is wrong: this status and error body."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        self.status = status
        self.body = error_body(status, message, param=param, code=code)


class _Prepared(NamedTuple):
    behaviour: Behaviour
    reply: Reply


_Body = TypeVar("_Body")

_decode_chat = msgspec.json.Decoder(ChatRequest).decode
_decode_embedding = msgspec.json.Decoder(EmbeddingRequest).decode


class SimulatedProvider:
    """Handles requests; `connections` are the open ones."""

    def __init__(self, bill: Bill, seed: int = 0, jobs_path: str | None = None) -> None:
        self.bill = bill
        self.media = MediaService(jobs_path, seed)
        self.seed = seed
        self.connections: set[Connection] = set()
        self._last: Request | None = None
        self._failures: dict[tuple[str, bytes], int] = {}  # (model, prompt) → failures so far
        self._numbers = count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = int(time.time())
        self._routes = {
            ("POST", "/v1/chat/completions"): self._chat,
            ("POST", "/v1/embeddings"): self._embed,
            ("GET", "/v1/models"): lambda: model_list(self._started),
            ("GET", "/sim/bill"): lambda: encode({"totals": self.bill.totals, "attempts": list(self.bill.rows)}),
            ("GET", "/sim/attempts"): lambda: encode({"attempts": [row.attempt for row in self.bill.rows]}),
            ("GET", "/sim/submissions"): lambda: encode(self.media.desk.tell()),
            ("GET", "/sim/last"): self._tell_last,
            ("POST", "/sim/reset"): self._reset,
        }

    def protocol(self) -> Connection:
        return Connection(self.handle, self.connections)

    def handle(self, connection: Connection, request: Request) -> None:
        path = request.target.partition("?")[0].rstrip("/")
        route = self._routes.get((request.method, path))
        if self.media.takes(path):
            self._last = request if request.method == "POST" else self._last
            self.media.handle(connection, request)
        elif route is None:
            message = f"The simulated provider has no {request.method} {path or '/'}."
            _send_now(connection, request, 404, error_body(404, message))
        elif request.method == "POST" and path.startswith("/v1/"):
            self._last = request
            self._generate(connection, request, route)
        else:
            _send_now(connection, request, 200, route())

    # --- models

    def _generate(self, connection: Connection, request: Request, prepare: Callable[[Request, Row], _Prepared]) -> None:
        row = self.bill.see(request.header(b"x-aig-attempt"))
        try:
            behaviour, reply = prepare(request, row)
        except _Refused as refused:
            row.status = refused.status
            self.bill.charge(row, "failed")
            _send_now(connection, request, refused.status, refused.body)
            return
        if reply.length is not None and behaviour.is_instant and not (behaviour.is_gzip or behaviour.is_close_delimited):
            self._play_at_once(connection, request, behaviour, reply)
            return
        task = asyncio.get_running_loop().create_task(play(connection, request, behaviour, reply))
        connection.on_gone = task.cancel
        self._tasks.add(task)
        task.add_done_callback(lambda task: self._played(connection, task, row, reply))

    def _play_at_once(self, connection: Connection, request: Request, behaviour: Behaviour, reply: Reply) -> None:
        """The common case without a task: one write."""
        body = b"".join(piece.data for piece in reply.pieces)
        reply.sent_tokens = reply.tokens
        reply.charge("complete")
        extra = EXTRA if behaviour.sends_extra else b""
        connection.write(head(reply, request, length=len(body), is_chunked=False) + body + extra)
        connection.finish()

    def _played(self, connection: Connection, task: asyncio.Task[None], row: Row, reply: Reply) -> None:
        self._tasks.discard(task)
        if row.end == "open":  # the client left, perhaps before the first step
            reply.charge("cancelled")
        if not task.cancelled() and task.exception() is not None:
            connection.close()
            asyncio.get_running_loop().call_exception_handler({"message": "a simulated reply failed", "exception": task.exception()})

    def _chat(self, request: Request, row: Row) -> _Prepared:
        chat = _decoded(_decode_chat, request.body)
        row.model = chat.model
        row.is_stream = bool(chat.stream)
        _check_chat(chat)
        behaviour = _behaviour_of(chat.model)
        if (chat.n or 1) > 1 and (chat.n or 1) * (behaviour.length + behaviour.reasoning) > MAX_TOKENS:
            raise _Refused(400, f"'n' choices of this model would take more than {MAX_TOKENS} tokens.", param="n")
        answers = answer(chat, behaviour, self.seed)
        refused = self._refusal(request, behaviour, row, answers.key)
        if refused is not None:
            return _Prepared(behaviour, refused)
        row.status = 200
        identity = Identity(f"chatcmpl-sim{next(self._numbers):010x}", int(time.time()), chat.model)
        reply = self._reply(row, behaviour, answers)
        if row.is_stream:
            reply.content_type = "text/plain" if behaviour.is_wrong_type else "text/event-stream"
            reply.pieces = stream_pieces(identity, answers, behaviour, asks_usage=asks_usage(chat))
        else:
            body = plain_body(identity, answers, behaviour)
            reply.length = len(body)
            reply.pieces = halves(body, reply.tokens)
        return _Prepared(behaviour, reply)

    def _reply(self, row: Row, behaviour: Behaviour, answers: Answers) -> Reply:
        """A reply that charges its row for the tokens it sent; a plain one whose client left is charged whole, as is `bills-all`."""

        def charge(end: str) -> None:
            is_whole = end == "cancelled" and (behaviour.bills_all or not row.is_stream)
            row.prompt_tokens = answers.prompt_tokens
            row.cached_tokens = answers.cached_tokens
            row.completion_tokens = answers.completion_tokens if is_whole else reply.sent_tokens
            row.reasoning_tokens = min(answers.reasoning_tokens, row.completion_tokens)
            self.bill.charge(row, end)

        content_type = "text/plain" if behaviour.is_wrong_type else JSON
        reply = Reply(status=200, content_type=content_type, tokens=answers.completion_tokens, charge=charge)
        return reply

    def _refusal(self, request: Request, behaviour: Behaviour, row: Row, key: bytes) -> Reply | None:
        """The failure that the behaviour asks for, if it is due. It costs nothing."""
        if behaviour.status == 200:
            return None
        failed = self._failures.get((row.model, key), 0)
        if failed >= behaviour.failures:
            return None
        if len(self._failures) >= MAX_PROMPTS_REMEMBERED:
            self._failures.clear()
        self._failures[row.model, key] = failed + 1
        row.status = behaviour.status
        content_type, body, headers = refusal(behaviour, request.header(b"authorization").removeprefix("Bearer "))
        return Reply(
            status=behaviour.status, content_type=content_type, headers=headers, length=len(body), pieces=halves(body, 0),
            charge=lambda end: self.bill.charge(row, "failed" if end == "complete" else end),
        )  # fmt: skip

    def _embed(self, request: Request, row: Row) -> _Prepared:
        asked = _decoded(_decode_embedding, request.body)
        row.model = asked.model
        if not 1 <= asked.dimensions <= MAX_DIMENSIONS:
            raise _Refused(400, f"'dimensions' must be from 1 to {MAX_DIMENSIONS}.", param="dimensions")
        behaviour = _behaviour_of(asked.model)
        inputs = asked.input if isinstance(asked.input, list) and not _is_tokens(asked.input) else [asked.input]
        if not inputs:
            raise _Refused(400, "'input' must not be empty.", param="input")
        tokens = sum(count_words(text) if isinstance(text, str) else len(text) for text in inputs)
        answers = Answers([], tokens, 0, request.body)
        refused = self._refusal(request, behaviour, row, answers.key)
        if refused is not None:
            return _Prepared(behaviour, refused)
        row.status = 200
        vectors = [embed(str(text), asked.dimensions, self.seed) for text in inputs]
        data = [
            {"object": "embedding", "index": at, "embedding": _packed(vector) if asked.encoding_format == "base64" else vector}
            for at, vector in enumerate(vectors)
        ]
        body = {"object": "list", "data": data, "model": asked.model}
        if behaviour.usage != "none":
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        reply = self._reply(row, behaviour, answers)
        written = encode(body)
        reply.length = len(written)
        reply.pieces = halves(written, 0)
        return _Prepared(behaviour, reply)

    async def drain(self, timeout_s: float) -> None:
        """Running replies finish; those that take longer are cut, and charged as cancelled."""
        for connection in list(self.connections):
            connection.finish_and_close()
        await self.media.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # --- what it remembers

    def _tell_last(self) -> bytes:
        """The last model request as it arrived."""
        if self._last is None:
            return b"null"
        request = self._last
        lines = [f"{request.method} {request.target} HTTP/{request.version}".encode()]
        lines += [name + b": " + value for name, value in request.headers]
        return encode({"head": b"\r\n".join(lines).decode("latin-1"), "body": request.body.decode(errors="backslashreplace")})

    def _reset(self) -> bytes:
        self.bill.reset()
        self.media.reset()
        self._failures.clear()
        self._last = None
        return b"{}"


def _behaviour_of(model: str) -> Behaviour:
    try:
        return read_behaviour(model)
    except UnknownBehaviour as error:
        raise _Refused(404, str(error), param="model", code="model_not_found") from error


def _decoded(decode: Callable[[bytes], _Body], body: bytes) -> _Body:
    try:
        return decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refused(400, f"The request body cannot be used: {error}") from error


def _check_chat(chat: ChatRequest) -> None:
    if not chat.messages:
        raise _Refused(400, "'messages' must not be empty.", param="messages")
    if chat.n is not None and not 1 <= chat.n <= MAX_CHOICES:
        raise _Refused(400, f"'n' must be from 1 to {MAX_CHOICES}.", param="n")
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(chat, name)
        if value is not None and value < 1:
            raise _Refused(400, f"'{name}' must be at least 1.", param=name)


def _is_tokens(given: list) -> bool:
    return bool(given) and isinstance(given[0], int)


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _send_now(connection: Connection, request: Request, status: int, body: bytes) -> None:
    reply = Reply(status=status, content_type=JSON, charge=_charge_nobody)
    connection.write(head(reply, request, length=len(body), is_chunked=False) + body)
    connection.finish()


def _charge_nobody(end: str) -> None:
    """For replies that are not a model's."""
