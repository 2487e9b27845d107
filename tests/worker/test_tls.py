"""TLS towards providers: bytes come whole however they are cut up, and a connection holds little however much was sent."""

from __future__ import annotations

import asyncio
import ctypes
import random
import ssl
from pathlib import Path

import pytest

from aigate.worker.client import tls_context
from aigate.worker.tls import READ_BYTES, RECORD_BYTES, TlsConnection
from tests.worker.raw_provider import pool, provider, run
from tests.worker.test_client import certificate, failure, server_context

__all__ = ["certificate"]  # a fixture

CONNECTIONS = 100
HELD_BYTES = 88 << 10  # of a connection in the middle of a record: 39 KiB of OpenSSL's own, and less than two records


class Reader(asyncio.Protocol):
    """What is told to whoever uses a connection."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.longest_bytes = 0
        self.told: list[object] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.longest_bytes = max(self.longest_bytes, len(data))

    def eof_received(self) -> None:
        self.told.append("eof")

    def connection_lost(self, error: Exception | None) -> None:
        self.told.append(type(error))


class Wire(asyncio.Transport):
    """In place of a TCP connection: what was written waits in `sent`."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.is_closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.sent += data

    def close(self) -> None:
        self.is_closed = True


class Server:
    """The other side, in memory, and what it writes as it arrives here: `step` bytes at a time."""

    def __init__(self, context: ssl.SSLContext, connection: TlsConnection, step: int = READ_BYTES):
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)
        self.connection, self.step, self.wire = connection, step, Wire()
        connection.connection_made(self.wire)
        is_done = False
        while not is_done:
            self.read_wire()
            try:
                self.tls.do_handshake()
                is_done = True
            except ssl.SSLWantReadError:
                pass
            self.arrive(self.outgoing.read())

    def read_wire(self) -> None:
        self.incoming.write(self.wire.sent)
        self.wire.sent = b""

    def send(self, data: bytes) -> bytes:
        """As it is on the wire."""
        view = memoryview(data)
        while view:
            view = view[self.tls.write(view) :]
        return self.outgoing.read()

    def arrive(self, data: bytes) -> None:
        for begin in range(0, len(data), self.step):
            part = data[begin : begin + self.step]
            self.connection.get_buffer(-1)[: len(part)] = part
            self.connection.buffer_updated(len(part))


@pytest.mark.parametrize("step", [1, 1_000, READ_BYTES])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_bytes_are_the_same_however_they_arrive(certificate: Path, step: int, version: ssl.TLSVersion):
    async def main() -> None:
        context, reader = tls_context(str(certificate)), Reader()
        context.maximum_version = version
        connection = TlsConnection(reader, context, "127.0.0.1", asyncio.get_running_loop())
        server = Server(server_context(certificate), connection, step)
        await connection.opened
        sent = random.Random(step).randbytes(70_000)
        server.arrive(server.send(sent[:10]) + server.send(sent[10:40_000]) + server.send(sent[40_000:]))
        assert reader.data == sent and reader.longest_bytes <= READ_BYTES + RECORD_BYTES
        for size in (1, 16_384, 16_385, 70_000):
            connection.write(sent[:size])
            server.read_wire()
            received = b""
            while len(received) < size:
                received += server.tls.read(1 << 20)
            assert received == sent[:size]
        assert reader.told == ["made"]

    run(main)


def test_a_connection_in_the_middle_of_a_stream_holds_little(certificate: Path):
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("the C library does not say how much is in use")

    async def main() -> None:
        tls, authority, kept = server_context(certificate), tls_context(str(certificate)), []
        before_bytes = 0
        for number in range(CONNECTIONS + 10):
            if number == 10:  # what the first ones make is everybody's
                before_bytes = _bytes_in_use(libc)
            connection = TlsConnection(Reader(), authority, "127.0.0.1", asyncio.get_running_loop())
            server = Server(tls, connection)
            server.arrive(server.send(bytes(200_000))[:-10])
            connection._inner.data.clear()  # type: ignore[attr-defined]
            kept.append(connection)
            del server
        assert (_bytes_in_use(libc) - before_bytes) / CONNECTIONS < HELD_BYTES

    run(main)


def _bytes_in_use(libc: ctypes.CDLL) -> int:
    class Numbers(ctypes.Structure):
        _fields_ = [(name, ctypes.c_size_t) for name in ("a", "b", "c", "d", "mapped", "e", "f", "in_use", "g", "h")]

    libc.mallinfo2.restype = Numbers
    numbers = libc.mallinfo2()
    return numbers.in_use + numbers.mapped


def test_an_end_that_is_said_and_one_that_is_not(certificate: Path):
    async def main() -> None:
        for said in (True, False):
            reader = Reader()
            connection = TlsConnection(reader, tls_context(str(certificate)), "127.0.0.1", asyncio.get_running_loop())
            server = Server(server_context(certificate), connection)
            last = server.send(b"the last words")
            if said:
                with pytest.raises(ssl.SSLWantReadError):  # it has said so and waits for ours
                    server.tls.unwrap()
            server.arrive(last + server.outgoing.read())
            assert reader.data == b"the last words" and server.wire.is_closed == said
            connection.connection_lost(None)
            assert reader.told == ["made", *(["eof"] if said else []), type(None)]

    run(main)


def test_a_damaged_record_ends_the_connection_as_an_error(certificate: Path):
    async def main() -> None:
        reader = Reader()
        connection = TlsConnection(reader, tls_context(str(certificate)), "127.0.0.1", asyncio.get_running_loop())
        server = Server(server_context(certificate), connection)
        whole, damaged = server.send(b"whole"), bytearray(server.send(b"damaged"))
        damaged[-1] ^= 1
        server.arrive(whole + damaged)
        assert reader.data == b"whole" and server.wire.is_closed
        connection.connection_lost(None)
        assert reader.told == ["made", ssl.SSLError]

    run(main)


def test_a_server_that_says_nothing_or_leaves_in_the_handshake_is_told_so():
    async def main() -> None:
        async def silent(peer) -> None:  # type: ignore[no-untyped-def]
            await peer.closed()

        async def leaves(peer) -> None:  # type: ignore[no-untyped-def]
            await peer.reader.read(10)

        for script, kind in ((silent, "timeout"), (leaves, "refused")):
            async with provider(script) as origin, pool(connect_timeout_s=0.2) as outbound:
                https = type(origin)("https", origin.host, origin.port)
                error = await failure(outbound.connect(https))
                assert error.kind == kind and outbound.stats().open == 0

    run(main)
