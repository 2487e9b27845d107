"""Plays one reply of the simulated provider on a connection: delays, faults, framing. Knows bytes and token counts, no JSON."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Iterable
from http import HTTPStatus

import msgspec

from aigate.sim.behaviours import CUT_BEFORE_HEAD, NEVER, Behaviour
from aigate.sim.replies import PADDING, Piece
from aigate.sim.server import Connection, Request

PIECES_A_WRITE = 64
_FILLER = b"x" * (64 << 10)
_PADDING = PADDING.encode()
_EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n"
EXTRA = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nextra"
_REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Site is overloaded"}


class Reply(msgspec.Struct, kw_only=True):
    """A reply to play. `sent_tokens` counts as it goes; `charge(end)` is called before the last byte is out."""

    status: int
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterable[Piece] = ()
    length: int | None = None  # of the body, padding not counted; None: a stream
    tokens: int = 0  # that a whole reply carries
    sent_tokens: int = 0
    error_event: bytes = b""  # how the format says that a stream failed
    charge: Callable[[str], None]


def head(reply: Reply, request: Request, *, length: int | None, is_chunked: bool) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {_REASONS.get(reply.status, 'Unknown')}", f"content-type: {reply.content_type}"]
    lines += [f"{name}: {value}" for name, value in reply.headers]
    if length is not None:
        lines.append(f"content-length: {length}")
    elif is_chunked:
        lines.append("transfer-encoding: chunked")
    if not request.keeps_alive:
        lines.append("connection: close")
    elif request.version == "1.0":
        lines.append("connection: keep-alive")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def play(connection: Connection, request: Request, behaviour: Behaviour, reply: Reply) -> None:
    """To be cancelled when the client leaves: then the reply is still to be charged."""
    if behaviour.hangs:
        await _forever()
    if behaviour.first_delay_s:
        await asyncio.sleep(behaviour.first_delay_s)
    if behaviour.sends_103:
        connection.write(_EARLY_HINTS)
    body = _Body(connection, request, behaviour, reply)
    if CUT_BEFORE_HEAD in (behaviour.cut_after, behaviour.reset_after):
        reply.charge("cut")
        _break(connection, behaviour)
        return
    faults = _faults(behaviour, reply.tokens)
    batch: list[bytes] = []
    for piece in reply.pieces:
        if faults and reply.sent_tokens >= faults[0][0]:
            await body.send(b"".join(batch))
            await _fail(connection, behaviour, body, faults[0][1], reply)
            return
        if piece.tokens:
            if reply.sent_tokens and behaviour.chunk_delay_s:
                await asyncio.sleep(behaviour.chunk_delay_s)
            reply.sent_tokens += piece.tokens
        batch.append(piece.data)
        if behaviour.chunk_delay_s or len(batch) >= PIECES_A_WRITE:
            await body.send(b"".join(batch))
            batch.clear()
    reply.charge("complete")
    await body.send(b"".join(batch))
    body.finish()


def _faults(behaviour: Behaviour, tokens: int) -> list[tuple[int, str]]:
    """(after so many tokens, cut | reset | stall | error). One after more tokens than there are falls after the last."""
    faults = (("cut", behaviour.cut_after), ("reset", behaviour.reset_after), ("stall", behaviour.stall_after), ("error", behaviour.error_after))
    return sorted((min(after, tokens), fault) for fault, after in faults if after != NEVER)


async def _fail(connection: Connection, behaviour: Behaviour, body: _Body, fault: str, reply: Reply) -> None:
    if fault == "stall":
        await _forever()
    reply.charge("failed" if fault == "error" else "cut")
    if fault == "error":
        await body.send(reply.error_event)
        body.finish()
    else:
        _break(connection, behaviour)


def _break(connection: Connection, behaviour: Behaviour) -> None:
    if behaviour.reset_after != NEVER:
        connection.reset()
    else:
        connection.close()


async def _forever() -> None:
    """Until the client leaves, which cancels the player."""
    await asyncio.get_running_loop().create_future()


class _Body:
    """One body on its way out: head before its first byte, framing, compression, padding, dribble, back-pressure."""

    def __init__(self, connection: Connection, request: Request, behaviour: Behaviour, reply: Reply) -> None:
        self.connection = connection
        self.behaviour = behaviour
        self.zip = zlib.compressobj(wbits=31) if behaviour.is_gzip else None
        has_length = reply.length is not None and not behaviour.is_gzip and not behaviour.is_close_delimited
        length = reply.length + (behaviour.pad_bytes - len(_PADDING) if behaviour.pad_bytes else 0) if has_length else None
        self.is_chunked = not has_length and not behaviour.is_close_delimited and request.version != "1.0"
        if not has_length and not self.is_chunked:
            request.keeps_alive = False
        if behaviour.is_gzip:
            reply.headers += (("content-encoding", "gzip"),)
        self.head = head(reply, request, length=length, is_chunked=self.is_chunked)

    async def send(self, data: bytes) -> None:
        """Also sends the head, even when there is no data yet."""
        first, *rest = data.split(_PADDING) if self.behaviour.pad_bytes else (data,)
        await self._send(first)
        for part in rest:
            left_bytes = self.behaviour.pad_bytes
            while left_bytes:
                block = _FILLER[:left_bytes]
                await self._send(block)
                left_bytes -= len(block)
            await self._send(part)

    async def _send(self, data: bytes) -> None:
        if data and self.zip is not None:
            data = self.zip.compress(data) + self.zip.flush(zlib.Z_SYNC_FLUSH)
        await self._write(self._take_head() + self._framed(data))

    async def _write(self, data: bytes) -> None:
        connection = self.connection
        if self.behaviour.dribbles:
            for at in range(len(data)):
                connection.write(data[at : at + 1])
                await connection.drained()  # each its own write
        elif data:
            connection.write(data)
            await connection.drained()

    def _take_head(self) -> bytes:
        taken, self.head = self.head, b""
        return taken

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if data and self.is_chunked else data

    def finish(self) -> None:
        last = self._framed(self.zip.flush()) if self.zip is not None else b""
        if self.is_chunked:
            last += b"0\r\n\r\n"
        if self.behaviour.sends_extra:
            last += EXTRA
        self.connection.write(self._take_head() + last)
        self.connection.finish()
