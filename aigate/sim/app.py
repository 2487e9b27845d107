"""The simulated provider: its endpoints, its bill, what it remembers of requests. It speaks four formats (chat.py, responses.py, messages.py,
gemini.py), says the same in all of them (answers.py), and sends it by play.py."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from types import ModuleType
from typing import NamedTuple

import msgspec

from aigate.core.words import count_words
from aigate.sim import chat, gemini, messages, responses
from aigate.sim.answers import Answers, answer, embed
from aigate.sim.behaviours import MAX_TOKENS, Behaviour, UnknownBehaviour, read_behaviour
from aigate.sim.bill import Bill, Row
from aigate.sim.check import Invalid
from aigate.sim.media import MediaService
from aigate.sim.play import EXTRA, Reply, head, play
from aigate.sim.replies import Identity, Piece, encode, halves, model_list, refusal
from aigate.sim.server import Connection, Request

JSON = "application/json"
_CREDENTIALS = (b"authorization", b"x-api-key", b"x-goog-api-key")
MAX_DIMENSIONS = 4096
MAX_PROMPTS_REMEMBERED = 10_000  # of those that fail a few times and then answer


class EmbeddingRequest(msgspec.Struct):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: int = 256
    encoding_format: str = "float"


class _Prepared(NamedTuple):
    behaviour: Behaviour
    reply: Reply


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
        self._formats: dict[str, ModuleType] = {"/v1/chat/completions": chat, "/v1/responses": responses, "/v1/messages": messages}
        self._routes: dict[tuple[str, str], Callable[[], bytes]] = {
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
        wire = gemini if gemini.PATH.fullmatch(request.target) else self._formats.get(path)
        route = self._routes.get((request.method, path))
        if self.media.takes(path):
            self._last = request if request.method == "POST" else self._last
            self.media.handle(connection, request)
        elif request.method == "POST" and (wire is not None or path == "/v1/embeddings"):
            self._last = request
            self._generate(connection, request, wire or chat, self._embed if wire is None else self._converse)
        elif route is None:
            message = f"The simulated provider has no {request.method} {path or '/'}."
            _send_now(connection, request, 404, chat.error(404, message))
        else:
            _send_now(connection, request, 200, route())

    # --- models

    def _generate(
        self, connection: Connection, request: Request, wire: ModuleType, prepare: Callable[[ModuleType, Request, Row], _Prepared]
    ) -> None:
        row = self.bill.see(request.header(b"x-aig-attempt"))
        try:
            behaviour, reply = prepare(wire, request, row)
        except (Invalid, UnknownBehaviour) as refused:
            row.status, param, code = (refused.status, refused.param or None, refused.code) if isinstance(refused, Invalid) else (404, "model", "model_not_found")
            self.bill.charge(row, "failed")
            _send_now(connection, request, row.status, wire.error(row.status, str(refused), param, code))
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

    def _converse(self, wire: ModuleType, request: Request, row: Row) -> _Prepared:
        asked = wire.read(request)
        row.model = asked.model
        row.is_stream = bool(asked.stream)
        behaviour = read_behaviour(asked.model)
        if (asked.n or 1) > 1 and (asked.n or 1) * (behaviour.length + behaviour.reasoning) > MAX_TOKENS:
            raise Invalid(f"'n' choices of this model would take more than {MAX_TOKENS} tokens.", "n")
        answers = answer(asked, behaviour, self.seed)
        refused = self._refusal(wire, request, behaviour, row, answers.key)
        if refused is not None:
            return _Prepared(behaviour, refused)
        row.status = 200
        number = next(self._numbers)
        identity = Identity(f"chatcmpl-sim{number:010x}" if wire is chat else f"sim{number:010x}", int(time.time()), asked.model)
        reply = self._reply(row, behaviour, answers)
        if row.is_stream:
            is_array = JSON if asked.is_array else "text/event-stream"
            reply.content_type = "text/plain" if behaviour.is_wrong_type else is_array
            reply.pieces = wire.stream(identity, answers, behaviour, asked)
            reply.error_event = wire.error_event()
            if behaviour.is_garbage and wire is not chat:
                reply.pieces = _with_garbage(reply.pieces)
        else:
            body = wire.plain(identity, answers, behaviour, asked)
            body = body[: len(body) // 2] if behaviour.is_garbage and wire is not chat else body
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

    def _refusal(self, wire: ModuleType, request: Request, behaviour: Behaviour, row: Row, key: bytes) -> Reply | None:
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
        credential = next((value for name in _CREDENTIALS if (value := request.header(name))), "").removeprefix("Bearer ")
        content_type, body, headers = refusal(behaviour, credential, wire.error)
        return Reply(
            status=behaviour.status, content_type=content_type, headers=headers, length=len(body), pieces=halves(body, 0),
            charge=lambda end: self.bill.charge(row, "failed" if end == "complete" else end),
        )  # fmt: skip

    def _embed(self, wire: ModuleType, request: Request, row: Row) -> _Prepared:
        try:
            asked = _decode_embedding(request.body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Invalid(f"The request body cannot be used: {error}") from error
        row.model = asked.model
        if not 1 <= asked.dimensions <= MAX_DIMENSIONS:
            raise Invalid(f"'dimensions' must be from 1 to {MAX_DIMENSIONS}.", "dimensions")
        behaviour = read_behaviour(asked.model)
        inputs = asked.input if isinstance(asked.input, list) and not _is_tokens(asked.input) else [asked.input]
        if not inputs:
            raise Invalid("'input' must not be empty.", "input")
        tokens = sum(count_words(text) if isinstance(text, str) else len(text) for text in inputs)
        answers = Answers([], tokens, 0, request.body)
        refused = self._refusal(wire, request, behaviour, row, answers.key)
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


def _with_garbage(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """After the first pieces, one event that is not JSON."""
    for at, piece in enumerate(pieces):
        yield piece
        if at == 2:
            yield Piece(b'data: {"type":"cont\n\n')


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
