"""One HTTP/1.1 connection to a provider: a request out, its reply in, then back to the pool or closed.

Owns framing, deadlines and the mapping of whatever goes wrong on the wire to ProviderError. It is reused only after a
reply with explicit framing that came whole, with no byte before or behind it. It must not look inside a body, retry, or
know of money. The pool (worker/client.py) opens connections and calls `expire` on those past their deadline: no call
costs a timer of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, cast

from httptools import HttpParserError, HttpResponseParser

from aigate.errors import GatewayError, ProviderError

if TYPE_CHECKING:
    from aigate.worker.client import Origin, Pool

MAX_HEAD_BYTES = 64 << 10  # interim replies included
STALE_S = 1.0  # a kept connection that closes this soon after the write was closed before it
LINGER_S = 1.0  # how long a released stream may take to send the end of its framing

OnData = Callable[[bytes], None]
OnEnd = Callable[[ProviderError | None], None]


class Head:
    """The final head of a reply. The parser has judged `raw`, so splitting it needs no checks, and most replies need none of it."""

    __slots__ = ("status", "raw", "_headers")

    def __init__(self, status: int, raw: bytes):
        self.status = status
        self.raw = raw
        self._headers: dict[bytes, bytes] | None = None

    @property
    def headers(self) -> dict[bytes, bytes]:
        """Names are lower-case; repeated fields are joined by a comma."""
        if self._headers is None:
            self._headers = headers = {}
            for line in self.raw.split(b"\r\n")[1:]:
                name, _, value = line.partition(b":")
                name, value = name.lower(), value.strip(b" \t")
                headers[name] = headers[name] + b", " + value if name in headers else value
        return self._headers

    def may_have(self, name: bytes) -> bool:
        """Quicker than a look into `headers`; never False for a field that is there."""
        return name in self.raw.lower()


class Connection(asyncio.Protocol):
    """Used by one call at a time: `send`, `head`, then `body` or `stream`, then `release` or `abort`, exactly once.

    `is_reused`: it was idle before this call. `is_complete`: no byte of a reply is outstanding. `is_refused`: nothing was sent after all.
    `is_close_delimited`: this reply ends where the connection does, so only its reader can tell whether it is whole."""

    # fmt: off
    __slots__ = (
        # for its life
        "host", "_pool", "_turn", "_idle", "_loop", "_now", "_transport", "_parser", "_feed", "_pieces", "on_body",
        "is_reused", "is_idle", "is_closed",
        # for one call
        "is_complete", "is_close_delimited", "is_refused", "deadline", "_held", "_is_keepable", "_is_head_request", "_is_paused",
        "_head", "_raw_head", "_interim_heads", "_written_at", "_timeout_s", "_waiter", "_on_data", "_on_end", "_error",
    )
    # fmt: on

    def __init__(self, pool: Pool, origin: Origin, idle: list[Connection]):
        self.host = origin.host
        self._pool = pool
        self._turn = pool.turn
        self._idle = idle
        self._loop = pool.loop
        self._now = pool.loop.time
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # the parser calls it: a C function, no frame of ours per chunk
        self._parser = HttpResponseParser(self)
        self._feed: Callable[[bytes], None] = self._parser.feed_data
        self.is_reused = False
        self.is_idle = False
        self.is_closed = False

        self.is_complete = True  # nothing was asked yet
        self.is_close_delimited = False
        self.is_refused = False
        self.deadline = inf
        self._held = b""  # the request, until the end of the turn
        self._is_keepable = True
        self._is_head_request = False
        self._is_paused = False
        self._head: Head | None = None
        self._raw_head = b""  # all bytes of the reply until its final head is whole
        self._interim_heads = 0
        self._written_at = 0.0
        self._timeout_s = 0.0
        self._waiter: asyncio.Future[Head] | None = None
        self._on_data: OnData | None = None
        self._on_end: OnEnd | None = None
        self._error: ProviderError | None = None

    # --- the call's side ---

    def send(self, request: bytes) -> None:
        """Writes the whole request, head and body, in one piece, at the latest at the end of the turn. A failure is told by `head`."""
        self.is_complete = self._is_keepable = self.is_close_delimited = self.is_refused = False
        self._is_head_request = request.startswith(b"HEAD ")
        self._head = None
        self._raw_head = b""
        self._interim_heads = 0
        self._written_at = self._now()
        if self.is_closed:
            self._error = self._loss()
        elif self._turn.takes(self):
            self._held = request
        else:
            self._transport.write(request)

    def send_held(self) -> None:
        request, self._held = self._held, b""
        if request and not self.is_closed:
            self._transport.write(request)

    def refuse(self, error: GatewayError) -> None:
        """The held request must not be sent: whoever waits for the head gets `error`, and the connection is as good as before."""
        self._held = b""
        self.deadline = inf
        self.is_refused = self.is_complete = self._is_keepable = True
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(error)

    def head(self, timeout_s: float) -> asyncio.Future[Head]:
        """The final head, `timeout_s` after `send` at the latest; interim ones (1xx) are skipped."""
        waiter = self._waiter = self._loop.create_future()
        if self._head is None and self._error is None and not self.is_closed:
            self._timeout_s = timeout_s
            self.deadline = self._written_at + timeout_s
        else:
            self._tell_head(waiter)
        return waiter

    def whole_body(self, max_bytes: int) -> bytes | None:
        """The body where all of it came together with the head, else None: then ask `body`."""
        pieces = self._pieces
        if self.is_complete and len(pieces) == 1 and len(pieces[0]) <= max_bytes:
            return pieces.pop()
        return None

    async def body(self, max_bytes: int, idle_timeout_s: float) -> bytes:
        """The whole body of a plain reply. Does not wait if it came together with the head."""
        if self.is_complete:
            body = b"".join(self._pieces)
            self._pieces.clear()
            if len(body) > max_bytes:
                self.abort()
                raise self._too_long(max_bytes)
            return body
        parts: list[bytes] = []
        size = 0
        ended: asyncio.Future[ProviderError | None] = self._loop.create_future()

        def on_data(data: bytes) -> None:
            nonlocal size
            size += len(data)
            parts.append(data)
            if size > max_bytes:
                self._fail(self._too_long(max_bytes))

        def on_end(error: ProviderError | None) -> None:
            if not ended.done():  # the call may have been cancelled
                ended.set_result(error)

        self.stream(on_data, on_end, idle_timeout_s)
        error = await ended
        if error is not None:
            raise error
        return b"".join(parts)

    def stream(self, on_data: OnData, on_end: OnEnd, idle_timeout_s: float) -> None:
        """From now on body bytes go to `on_data` as they are read, one call per read; what came before, at once.

        `on_end` is called once, also by `abort`: None if the body is whole."""
        self._on_data = on_data
        self._on_end = on_end
        self._timeout_s = idle_timeout_s
        self._deliver()

    def pause(self) -> None:
        """Stops reading, and with it the idle deadline: a slow client is not the provider's fault."""
        if not self._is_paused and not self.is_closed:
            self._is_paused = True
            self.deadline = inf
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._is_paused and not self.is_closed:
            self._is_paused = False
            if not self.is_complete:
                self.deadline = self._now() + self._timeout_s
            self._transport.resume_reading()

    def release(self) -> None:
        """Back to the pool, if nothing speaks against using it again; else closed. No callback is called any more."""
        if self.is_idle or self.is_closed:
            return
        if self._on_end is not None and not self.is_complete and not self.is_close_delimited:
            self._linger()
        elif self._is_keepable and not self._transport.get_write_buffer_size():
            self._on_data = self._on_end = None
            if self._pieces:
                self._pieces.clear()
            if self._is_paused:
                self.resume()
            self.is_idle = True
            self.deadline = self._now() + self._pool.idle_s
            self._idle.append(self)
        else:
            self._on_data = self._on_end = None
            self._close()

    def abort(self) -> None:
        """Closes now. Whoever waits for the rest is told that it was cut."""
        if not self.is_closed:
            self._fail(ProviderError("The connection to the provider was given up.", kind="cut"))

    def _linger(self) -> None:
        """The call has its terminal event, but the last bytes of the framing are still under way: a moment for them is
        cheaper than a new connection. A byte of body instead of them closes it."""
        self.resume()
        self._on_data = self._refuse
        self._on_end = self._end_linger
        self._timeout_s = LINGER_S
        self.deadline = self._now() + LINGER_S

    def _refuse(self, data: bytes) -> None:
        self.abort()

    def _end_linger(self, error: ProviderError | None) -> None:
        if error is None:
            self.release()

    # --- the pool's side ---

    def wake(self) -> bool:
        """Taken from the idle ones: is it still alive?"""
        self.is_idle = False
        self.is_reused = True
        self.deadline = inf
        return not self._transport.is_closing()

    def expire(self) -> None:
        """The deadline has passed."""
        if self.is_idle:
            self._close()
            return
        what = "did not answer" if self._head is None else "sent nothing"
        self._fail(
            ProviderError(
                f"The provider at {self.host} {what} for {self._timeout_s:g} s.",
                kind="timeout",
                status=504,
                type="timeout_error",
                code="provider_timeout",
            )
        )

    # --- the wire's side (asyncio.Protocol) ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self.is_complete or self._held:
            self._fail(self._loss())  # bytes that nobody asked for, or not yet
            return
        try:
            if self._head is not None:
                self._feed(data)
            elif len(data) > MAX_HEAD_BYTES or self._raw_head:
                self._feed_head(data)
            else:
                self._raw_head = data
                self._feed(data)
        except HttpParserError as error:
            self._is_keepable = False  # the parser cannot go on
            if not self.is_complete:
                self._error = self._bad_reply(f"is not valid HTTP/1.1 ({error.__context__ or error})")
                self._close()
        if self._waiter is not None:
            self._report()
        elif self._on_data is not None:
            if len(self._pieces) == 1 and not self.is_complete and self._error is None and not self._is_paused:
                self.deadline = self._now() + self._timeout_s  # one more piece of a stream, as nearly always
                self._on_data(self._pieces.pop())
            else:
                self._deliver()

    def eof_received(self) -> None:
        self._lost(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost(error)

    # --- the parser's callbacks (`on_body` is an attribute). Raising in one stops the parser for good. ---

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise HttpParserError("bytes after the reply")

    def on_headers_complete(self) -> None:
        parser = self._parser
        status = parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                raise HttpParserError(f"status {status}")
            self._interim_heads += 1
            return
        raw = self._raw_head.lstrip(b"\r\n") if not self._interim_heads else self._after_interims()
        head = self._head = Head(status, raw[: raw.find(b"\r\n\r\n")])
        self._raw_head = b""
        if self._is_head_request:
            self.is_complete = True
            raise HttpParserError("no body follows")  # the parser would wait for one
        if parser.should_keep_alive():
            return  # never so where the end of the connection is the end of the body
        headers = head.headers
        if b"content-length" not in headers and status != 204 and status != 304:
            coding = headers.get(b"transfer-encoding", b"")
            self.is_close_delimited = not coding.strip().lower().endswith(b"chunked")

    def on_message_complete(self) -> None:
        if self._head is not None:  # else an interim reply
            self.is_complete = True
            self._is_keepable = self._parser.should_keep_alive()
            self.deadline = inf

    # --- between the two ---

    def _feed_head(self, data: bytes) -> None:
        """A head that came in pieces so far, or comes with much behind it."""
        room = MAX_HEAD_BYTES - len(self._raw_head)
        if len(data) <= room:
            self._raw_head += data
            self._feed(data)
            return
        self._raw_head += data[:room]
        self._feed(data[:room])
        if self._head is None:
            raise HttpParserError(f"a head of more than {MAX_HEAD_BYTES} bytes")
        self._feed(data[room:])

    def _after_interims(self) -> bytes:
        raw = self._raw_head.lstrip(b"\r\n")  # empty lines before a head are none of it, as the parser sees it
        for _ in range(self._interim_heads):
            raw = raw.partition(b"\r\n\r\n")[2].lstrip(b"\r\n")
        return raw

    def _report(self) -> None:
        """Tells whoever waits what has come."""
        waiter = self._waiter
        if waiter is not None:
            if self._head is not None or self._error is not None:
                self._tell_head(waiter)
        elif self._on_data is not None:
            self._deliver()

    def _tell_head(self, waiter: asyncio.Future[Head]) -> None:
        self._waiter = None
        if waiter.done():
            return  # the call was cancelled
        if self._head is not None:
            waiter.set_result(self._head)
        else:
            waiter.set_exception(self._error or self._loss())

    def _deliver(self) -> None:
        pieces = self._pieces
        on_data = self._on_data
        if pieces and on_data is not None:
            if len(pieces) == 1:
                data = pieces.pop()
            else:
                data = b"".join(pieces)
                pieces.clear()
            on_data(data)
        if self.is_complete or self._error is not None:
            on_end = self._on_end
            self._on_data = self._on_end = None
            if on_end is not None:
                on_end(None if self.is_complete else self._error)
        elif not self._is_paused:
            self.deadline = self._now() + self._timeout_s

    def _fail(self, error: ProviderError) -> None:
        if self._error is None:
            self._error = error
        self._close()
        self._report()

    def _lost(self, cause: Exception | None) -> None:
        """The provider closed (no cause) or the connection broke."""
        if self.is_closed:
            return
        if self.is_close_delimited and cause is None:
            self.is_complete = True
            self._close()
            self._report()
        elif self.is_complete:
            self._close()
        else:
            self._fail(self._loss())

    def _close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._is_keepable = False
        self.deadline = inf
        self._transport.abort()
        self._pool.forget(self)
        if self.is_idle:
            self.is_idle = False
            self._idle.remove(self)
        self._feed = _drop
        del self._parser  # it and the connection hold each other

    # --- what went wrong, in words that are safe to show ---

    def _loss(self) -> ProviderError:
        if self._head is not None:
            return ProviderError(f"The provider at {self.host} closed before its reply was whole.", kind="cut")
        error = ProviderError(f"The provider at {self.host} closed before it answered.", kind="reset")
        error.is_stale = self.is_reused and not self._raw_head and self._now() - self._written_at <= STALE_S
        return error

    def _bad_reply(self, problem: str) -> ProviderError:
        return ProviderError(f"The reply of the provider at {self.host} {problem}.", kind="bad_reply")

    def _too_long(self, max_bytes: int) -> ProviderError:
        return self._bad_reply(f"is longer than {max_bytes} bytes")


def _drop(data: bytes) -> None:
    """What a closed connection still reads."""
