"""The outbound pool: connections to providers, kept by origin and credential. `send` of the data path.

Owns where connections come from (DNS, TCP, Unix sockets, TLS), which are idle, and the one timer that ends what is past
its deadline. What travels over a connection is worker/upstream_connection.py. It must not retry, choose a provider or
write a head.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import zlib
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import msgspec

from aigate.errors import ProviderError
from aigate.worker.tls import TlsConnection
from aigate.worker.turn import Turn
from aigate.worker.upstream_connection import Connection

DEFAULT_PORTS = {"http": 80, "https": 443}
SWEEP_S = 0.5  # how late a deadline may be noticed


class Origin(msgspec.Struct, frozen=True, cache_hash=True):
    """Where connections go and on whose behalf: two credentials never share a connection. It is the pool's key."""

    scheme: str  # http | https
    host: str  # name or address, without brackets
    port: int
    unix_path: str | None = None
    credential_id: str = ""

    @property
    def authority(self) -> str:
        """As the Host field spells it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_base_url(url: str) -> tuple[Origin, str]:
    """`https://host:1/v1` → (origin, "/v1"); `unix:///run/a.sock:/v1` → a Unix socket.

    A ValueError names the problem, never the URL: it may hold a secret."""
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("a base URL is printable ASCII without spaces")
    parts = urlsplit(url)
    if parts.scheme == "unix":
        path, _, prefix = parts.path.partition(":")
        if parts.netloc or len(path) < 2:
            raise ValueError("a Unix socket is written unix:///path/to.sock:/v1")
        return Origin("http", "localhost", 80, unix_path=os.fsdecode(unquote_to_bytes(path))), prefix.rstrip("/")
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError("a base URL starts with https://, http:// or unix://")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a base URL carries no user or password; set the credential apart")
    if parts.query or parts.fragment or url[-1] in "?#":
        raise ValueError("a base URL has no query and no fragment")
    if not parts.hostname:
        raise ValueError("a base URL names a host")
    port = parts.port  # urlsplit raises the ValueError of a bad one
    if port == 0:
        raise ValueError("a port is between 1 and 65535")
    return Origin(parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]), parts.path.rstrip("/")


def tls_context(ca_file: str = "", *, verify: bool = True) -> ssl.SSLContext:
    """The system's authorities, and those of `ca_file` where given. Build it once: loading them takes milliseconds."""
    context = ssl.create_default_context()
    if ca_file:
        context.load_verify_locations(ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


# What the kernel takes before anybody has asked for it: a body's first bytes are read before its reader is there to pause them. With 2,000 streams
# at once the worker held 590 MiB at the kernel's default, 120 to 220 MiB with this (2026-11).
TLS_RECEIVE_BYTES = 64 << 10


class PoolStats(NamedTuple):
    open: int
    idle: int
    opened: int  # since the start


class Pool:
    """`take` is the fast path: an idle connection, at once, or None; `connect` opens one where there is none."""

    def __init__(
        self,
        *,
        connect_timeout_s: float,
        idle_s: float = 30.0,
        tls: ssl.SSLContext | None = None,
        sweep_s: float = SWEEP_S,
        turn: Turn | None = None,
        loop: asyncio.AbstractEventLoop,
    ):
        self.loop = loop
        self.turn = turn or Turn(loop)
        self.idle_s = idle_s
        self.is_open = True
        self._connect_timeout_s = connect_timeout_s
        self._sweep_s = sweep_s
        self._tls = tls
        self._idle: dict[Origin, list[Connection]] = {}  # the last released is the first taken
        self._connections: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._opened = 0

    def take(self, origin: Origin) -> Connection | None:
        """The connection used last, if it still lives. Must be followed by its `release` or `abort`."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.wake():
                return connection
        return None

    async def connect(self, origin: Origin) -> Connection:
        # In a task of its own, as its time limit needs one and calls are not tasks (drive.py).
        return self.take(origin) or await self.loop.create_task(self._open(origin))

    async def warm(self, origin: Origin, count: int) -> int:
        """Opens until `count` are idle; returns how many are. A failure is left to the call that meets it."""
        missing = count - len(self._idle.get(origin, ()))
        for result in await asyncio.gather(*(self._open(origin) for _ in range(missing)), return_exceptions=True):
            if isinstance(result, Connection):
                result.release()
            elif not isinstance(result, ProviderError):
                raise result
        return len(self._idle.get(origin, ()))

    def close(self) -> None:
        """Closes every connection, also those in use."""
        self.is_open = False
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def stats(self) -> PoolStats:
        return PoolStats(len(self._connections), sum(map(len, self._idle.values())), self._opened)

    def sweep(self) -> None:
        """Ends what is past its deadline. The pool's timer does this; no call has a timer of its own."""
        now = self.loop.time()
        for connection in [connection for connection in self._connections if connection.deadline <= now]:
            connection.expire()

    def forget(self, connection: Connection) -> None:
        """A connection says that it closed."""
        self._connections.discard(connection)

    async def _open(self, origin: Origin) -> Connection:
        connection = Connection(self, origin, self._idle.setdefault(origin, []))
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                await self._dial(origin, connection)
        except (OSError, UnicodeError) as error:
            raise _unreachable(origin, error) from error
        self._connections.add(connection)
        self._opened += 1
        if not self.is_open:
            connection.abort()
        elif self._sweeper is None:
            self._sweeper = self.loop.call_later(self._sweep_s, self._tick)
        return connection

    async def _dial(self, origin: Origin, connection: Connection) -> None:
        if origin.unix_path is not None:
            await self.loop.create_unix_connection(lambda: connection, origin.unix_path)
        else:
            await self._dial_tcp(origin.host, origin, connection)

    async def _dial_tcp(self, host: str, origin: Origin, connection: Connection) -> None:
        """`host`: the name of the origin, or the address of it to connect to."""
        if origin.scheme == "http":
            await self.loop.create_connection(lambda: connection, host, origin.port)
        else:
            if self._tls is None:
                self._tls = tls_context()
            tls = TlsConnection(connection, self._tls, origin.host, self.loop)
            tcp, _ = await self.loop.create_connection(lambda: tls, host, origin.port)
            try:
                await tls.opened
            except BaseException:  # also what ends the wait
                tcp.abort()
                raise
            tcp.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, TLS_RECEIVE_BYTES)

    def _tick(self) -> None:
        self.sweep()
        self._sweeper = self.loop.call_later(self._sweep_s, self._tick) if self._connections else None


def _unreachable(origin: Origin, error: OSError | UnicodeError) -> ProviderError:
    """Why no connection came about, in words that are safe to show."""
    if isinstance(error, TimeoutError):
        return ProviderError(
            f"Connecting to {origin.authority} took too long.",
            kind="timeout",
            status=504,
            type="timeout_error",
            code="provider_timeout",
        )
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = f"its certificate was refused ({error.verify_message})"
    elif isinstance(error, ssl.SSLError):
        reason = f"TLS failed ({error.reason or 'no reason given'})"
    elif isinstance(error, (socket.gaierror, UnicodeError)):
        reason = "its name does not resolve"
    else:
        reason = os.strerror(error.errno).lower() if error.errno else "no address of it answered"
    return ProviderError(f"Could not connect to {origin.authority}: {reason}.", kind="refused")


def decode_body(body: bytes, encoding: bytes, max_bytes: int) -> bytes:
    """A plain reply that came compressed though we asked for identity; unpacks to `max_bytes` at most."""
    encoding = encoding.strip().lower()
    if encoding in (b"", b"identity"):
        return body
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise ProviderError(f"The provider's reply is encoded as {encoding.decode('latin-1')!r}.", kind="bad_reply")
    is_bare = encoding == b"deflate" and not _has_zlib_header(body)  # what some servers take "deflate" to mean
    parts: list[bytes] = []
    room = max_bytes + 1
    try:
        while body and room > 0:  # gzip allows several members in a row
            inflater = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS | 32)
            parts.append(inflater.decompress(body, room))
            room -= len(parts[-1])
            if room > 0 and not inflater.eof:
                raise ProviderError("The provider's compressed reply is cut short.", kind="bad_reply")
            body = inflater.unused_data
    except zlib.error as error:
        raise ProviderError("The provider's compressed reply cannot be unpacked.", kind="bad_reply") from error
    if room <= 0:
        raise ProviderError(f"The provider's reply unpacks to more than {max_bytes} bytes.", kind="bad_reply")
    return b"".join(parts)


def _has_zlib_header(body: bytes) -> bool:
    return len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
