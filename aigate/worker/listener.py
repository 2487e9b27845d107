"""receive: our HTTP/1.1 server. Step 1 of the data path. Shell.

Owns what all client connections share: routes, limits, request ids, the clock, the running handlers and the drain. A handler is
`async (Exchange) -> None`, run by a Drive (no task) once the body is read; what is not routed, and every WebSocket upgrade, goes to the
fallback with the body still coming. It must not know what any route does.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from email.utils import formatdate
from functools import lru_cache

import msgspec

from aigate.errors import ClientError, GateError, GatewayError
from aigate.worker.connection import Connection
from aigate.worker.drive import Drive
from aigate.worker.exchange import BodyStream, Exchange
from aigate.worker.framing import is_allowed_host
from aigate.worker.heads import error_fields, field_block
from aigate.worker.turn import Turn

__all__ = ["BodyStream", "Exchange", "Fallback", "FindRoute", "Handler", "Limits", "Listener"]

Handler = Callable[[Exchange], Coroutine[None, None, None]]
Fallback = Callable[[Exchange, BodyStream], Coroutine[None, None, None]]
FindRoute = Callable[[Exchange], Handler | None]  # for paths that hold names; asked where no route is exactly the path
WriteError = Callable[[GateError, str, str], bytes]  # error, request id, path → JSON envelope


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    max_body_bytes: int = 32 << 20  # routed requests
    max_upload_bytes: int = 100 << 20  # piped requests
    header_timeout_s: float = 10.0
    body_timeout_s: float = 60.0
    keep_alive_s: float = 75.0
    stall_s: float = 60.0  # a client that takes nothing this long is given up
    sweep_s: float = 1.0  # how often deadlines are looked at
    allowed_hosts: frozenset[str] = frozenset()  # the bound host among them; empty = any


class Listener:
    """Give `protocol` to `loop.create_server`."""

    def __init__(
        self,
        routes: Mapping[tuple[str, str], Handler],
        *,
        fallback: Fallback,
        limits: Limits,
        write_error: WriteError,
        find_route: FindRoute | None = None,
        turn: Turn | None = None,
    ):
        self.limits = limits
        self.write_error = write_error
        self.is_draining = False
        self._routes = dict(routes)
        for (method, path), handler in routes.items():
            if method == "GET":
                self._routes.setdefault(("HEAD", path), handler)
        self.allowed_methods: dict[str, bytes] = {}  # path → Allow
        for method, path in self._routes:
            known = self.allowed_methods.get(path)
            self.allowed_methods[path] = known + b", " + method.encode() if known else method.encode()
        self._find_route = find_route
        self._fallback = fallback
        self._allowed_hosts = frozenset(host.lower() for host in limits.allowed_hosts)
        self._is_allowed_host = lru_cache(1024)(is_allowed_host)
        self._loop = asyncio.get_running_loop()
        self.turn = turn or Turn(self._loop)
        self.time = self._loop.time
        self.soon = self._loop.call_soon
        self._connections: set[Connection] = set()
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}
        self._drives: dict[Exchange, Drive] = {}
        self._emptied: asyncio.Future[None] | None = None
        self._id_prefix = "req_" + secrets.token_hex(8)
        self._id_number = 0
        self._sweep()

    def protocol(self) -> Connection:
        return Connection(self)

    async def drain(self, timeout_s: float) -> None:
        """Closes idle connections, lets running calls end, then closes theirs; what is left after `timeout_s` is cut."""
        self.is_draining = True
        for connection in list(self._connections):
            connection.close_if_idle()
        if self._tasks or self._drives or self._connections:
            self._emptied = self._loop.create_future()
            await asyncio.wait((self._emptied,), timeout=timeout_s)
        ending = [drive.cancel() for drive in self._drives.values()]
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.gather(*tasks, *ending, return_exceptions=True)
        self._sweep_timer.cancel()

    # --- for connections ---

    def next_id(self) -> str:
        """64 random bits a listener and a counter: unique over processes and restarts."""
        self._id_number += 1
        return f"{self._id_prefix}{self._id_number:08x}"

    def route(self, exchange: Exchange) -> Handler | None:
        """The handler, or None for what is piped. ClientError where neither may have it."""
        headers = exchange.headers
        if b"expect" in headers and headers[b"expect"].lower() != b"100-continue":
            raise ClientError("Expect knows only 100-continue", status=417)
        if self._allowed_hosts and not self._is_allowed_host(headers.get(b"host", b""), self._allowed_hosts):
            raise ClientError("this Host is not served here: the operator lists the names in server.allowed_hosts", status=421)
        head = exchange.head
        if head.is_websocket and head.path not in self.allowed_methods:
            return None
        head.handler = handler = self._routes.get((head.method, head.path))
        if handler is not None:
            return handler
        if exchange.path in self.allowed_methods:
            allowed = self.allowed_methods[exchange.path].decode()
            words = f"{exchange.method} is not possible on {exchange.path}; use {allowed}."
            raise ClientError(words, status=405, code="method_not_allowed")
        return None if self._find_route is None else self._find_route(exchange)

    def run(self, handler: Handler, exchange: Exchange) -> None:
        """Until its first wait the handler runs here and now: nothing may come behind this in a callback."""
        drive = self._drives[exchange] = Drive(handler(exchange), self._loop, self._end_drive, exchange)
        drive.resume()

    def run_fallback(self, exchange: Exchange, body: BodyStream) -> None:
        self._tasks[exchange] = self._loop.create_task(self._run_task(self._fallback(exchange, body), exchange))

    def add(self, connection: Connection) -> None:
        self._connections.add(connection)

    def remove(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._tell_emptied()

    # --- own ---

    async def _run_task(self, handling: Awaitable[None], exchange: Exchange) -> None:
        problem: BaseException | None = None
        try:
            await handling
        except (Exception, asyncio.CancelledError) as raised:  # noqa: BLE001 - `_end` is the boundary
            problem = raised
        del self._tasks[exchange]
        self._end(exchange, problem)

    def _end_drive(self, exchange: Exchange, problem: BaseException | None) -> None:
        del self._drives[exchange]
        if problem is not None or self._emptied is not None or not exchange.is_ended:
            self._end(exchange, problem)

    def _end(self, exchange: Exchange, problem: BaseException | None) -> None:
        """The boundary of every handler: whatever it raises, its client gets an answer or a cut connection."""
        if problem is None and not exchange.is_ended and not exchange.is_gone:
            problem = RuntimeError(f"the handler of {exchange.path} left its reply without an end")
        if problem is None:
            pass
        elif isinstance(problem, GateError):
            self._fail(exchange, problem)
        elif isinstance(problem, asyncio.CancelledError):
            exchange.abort()
        else:  # a bug of ours must cost one call, not the worker
            self._loop.call_exception_handler({"message": f"handler failed on {exchange.request_id}", "exception": problem})
            self._fail(exchange, GatewayError("internal error: the gateway's log has it under this request id"))
        if self._emptied is not None:
            self._tell_emptied()

    def _fail(self, exchange: Exchange, error: GateError) -> None:
        if exchange.is_ended or exchange.is_gone:
            return
        if exchange.is_started:
            exchange.abort()
            return
        body = self.write_error(error, exchange.request_id, exchange.path)
        exchange.reply(error.status, error_fields(error, exchange.request_id), body)

    def _tell_emptied(self) -> None:
        emptied = self._emptied
        if emptied is not None and not self._tasks and not self._drives and not self._connections and not emptied.done():
            emptied.set_result(None)

    def _sweep(self) -> None:
        """One timer for all deadlines; also the coarse clock they are set by, and the Date of replies."""
        self._sweep_timer = self._loop.call_later(self.limits.sweep_s, self._sweep)
        self.now = now = self._loop.time()
        self.date = field_block([(b"date", formatdate(usegmt=True).encode())])
        for connection in list(self._connections):
            connection.check(now)
