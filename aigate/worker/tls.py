"""TLS towards providers, over a plain connection of the loop's: a protocol below, a transport above. Shell.

The loop's own makes a read buffer of 256 KiB for every connection, and keeps a second one as large as what one read ever brought: hundreds of MiB
over thousands of streams. Here all connections read into one buffer, and what was read goes through a record at a time, so that a connection
holds less than two records (39 KiB each when idle, 295 KiB with uvloop's), however much its provider has sent.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import cast

READ_BYTES = 32 << 10  # at once; a reader that pauses gets no more than this beyond it
RECORD_BYTES = 16 << 10

_buffer = memoryview(bytearray(READ_BYTES))  # read into and emptied in one go, by whoever has something to read


class TlsConnection(asyncio.BufferedProtocol):
    """Carries `inner`, which is told that it is connected once the handshake is done, as `opened` is."""

    __slots__ = ("opened", "_inner", "_incoming", "_outgoing", "_tls", "_read", "_tcp", "_is_open", "_error")

    def __init__(self, inner: asyncio.Protocol, context: ssl.SSLContext, host: str, loop: asyncio.AbstractEventLoop):
        self.opened: asyncio.Future[None] = loop.create_future()
        self._inner = inner
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._read = self._tls.read
        self._is_open = False
        self._error: Exception | None = None

    # --- a protocol, for the loop ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast(asyncio.Transport, transport)
        self._shake_hands()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        pieces: list[bytes] = []
        is_ended = False
        try:
            for begin in range(0, nbytes, RECORD_BYTES):
                self._incoming.write(_buffer[begin : min(begin + RECORD_BYTES, nbytes)])
                if self._is_open or self._shake_hands():
                    is_ended = self._decrypt(pieces)
        except ssl.SSLError as error:
            self._error = error
        if self._outgoing.pending:  # an answer to a new key
            self._tcp.write(self._outgoing.read())
        if pieces:
            self._inner.data_received(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        if is_ended:
            self._inner.eof_received()
        if is_ended or self._error is not None:
            self._tcp.close()

    def eof_received(self) -> None:
        """The transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        error = self._error or error
        if self._is_open:
            self._inner.connection_lost(error)
        elif not self.opened.done():
            self.opened.set_exception(error or ConnectionResetError("closed during the handshake"))

    # --- a transport, for `inner` ---

    def write(self, data: bytes) -> None:
        tls, outgoing = self._tls, self._outgoing
        if len(data) <= RECORD_BYTES:
            tls.write(data)
            self._tcp.write(outgoing.read())
            return
        view, records = memoryview(data), []
        while view:
            view = view[tls.write(view[:RECORD_BYTES]) :]
            records.append(outgoing.read())
        self._tcp.write(b"".join(records))

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def pause_reading(self) -> None:
        self._tcp.pause_reading()

    def resume_reading(self) -> None:
        self._tcp.resume_reading()

    def is_closing(self) -> bool:
        return self._tcp.is_closing()

    def abort(self) -> None:
        self._tcp.abort()

    # --- between the two ---

    def _shake_hands(self) -> bool:
        """Whether it is done. A failure is what `opened` tells."""
        try:
            self._tls.do_handshake()
            self._is_open = True
        except ssl.SSLWantReadError:
            pass  # more of it is under way
        except ssl.SSLError as error:
            self._error = error
        if self._outgoing.pending:
            self._tcp.write(self._outgoing.read())
        if self._error is not None:
            self._tcp.close()
        elif self._is_open:
            self._inner.connection_made(cast(asyncio.Transport, self))
            if not self.opened.done():
                self.opened.set_result(None)
        return self._is_open

    def _decrypt(self, pieces: list[bytes]) -> bool:
        """What is whole of what came. True where the other side has said that this was the end."""
        incoming, tls, read = self._incoming, self._tls, self._read
        try:
            while size := incoming.pending or tls.pending():
                piece = read(size)
                if not piece:
                    return True
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass  # the rest of a record is under way
        return False
