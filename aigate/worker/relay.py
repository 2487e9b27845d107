"""relay: upstream pieces → events → the client's bytes, with back-pressure, keep-alives and disconnects. Step 9 of the data path.

A relay carries one stream of one attempt. `on_data` runs inside the upstream connection's read callback: no task wakes per piece.
Until the first meaningful event nothing goes to the client, so an early failure can still fall back; the spine awaits `opened`,
then `ended`, settles, and only then sends the last bytes. The relay never decides money.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from aigate.core.events import Event
from aigate.core.usage import Usage
from aigate.dialects.dialect import StreamReader, StreamWriter
from aigate.errors import ProviderError

log = logging.getLogger("aigate.worker")

MAX_HELD_EVENTS = 64  # that say nothing, before a stream begins all the same
MAX_DRAIN_BYTES = 64 << 20  # what we read for a client that left, to learn the bill


class Sink(Protocol):
    """The client's side of a stream (worker/listener.Exchange)."""

    is_gone: bool
    is_started: bool
    on_gone: Callable[[], None] | None
    on_drain: Callable[[], None] | None

    @property
    def is_full(self) -> bool: ...
    def send(self, data: bytes) -> bool:
        """Whether it is full now."""
    def abort(self) -> None: ...


class Source(Protocol):
    """The provider's side (worker/client.Connection)."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def abort(self) -> None: ...


class Relay:
    """`opened`: resolves when something was said (True) or the stream ended or failed before one (False). `ended`: resolves
    once, when nothing more will come from the provider: then `error` (None when whole), `usage`, `raw_usage` tell how it went."""

    __slots__ = (
        "sink", "source", "reader", "writer", "opened", "ended", "error", "usage", "raw_usage", "service_tier", "is_done", "is_aborted",
        "last_write", "first_byte_at", "stops_on_cancel", "_now", "_drained_bytes", "_held", "_pending", "_is_paused", "_is_forwarding",
    )  # fmt: skip

    def __init__(
        self, sink: Sink, source: Source, reader: StreamReader, writer: StreamWriter, loop: asyncio.AbstractEventLoop
    ):
        self.sink = sink
        self.source = source
        self.reader = reader
        self.writer = writer
        self.opened: asyncio.Future[bool] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.error: ProviderError | None = None
        self.usage: Usage | None = None
        self.raw_usage = b""
        self.service_tier = ""
        self.is_done = False  # the format's own terminal event came
        self.is_aborted = False  # the client left, or the process ends
        self.stops_on_cancel = False
        self._now = loop.time
        self.last_write = loop.time()
        self.first_byte_at = -1.0
        self._drained_bytes = 0
        self._held: list[Event] | None = []  # what came before anything was said; None from then on
        self._pending = b""
        self._is_paused = False
        self._is_forwarding = False

    # --- provider side ---

    def on_data(self, data: bytes) -> None:
        if self.is_done:
            return  # nothing after the terminal event is the client's
        try:
            events = self.reader.feed(data)
            if not events:
                return
            if len(events) == 1 and events[0].texts is not None and self._held is None:  # a plain run says nothing but its texts
                data = self.writer.write(events)
                if self._is_forwarding and data and not self.is_aborted:
                    self._send(data)
                else:
                    self._deliver(data)
                return
            self._write(self._note(events))
        except Exception:  # noqa: BLE001 - whatever it is: nobody else would end the call that waits for this stream
            self._stumble()
            return
        if self.is_done or self.error is not None:
            self._end()

    def on_end(self, error: ProviderError | None) -> None:
        """The body ended (None) or broke off; what the reader held back is delivered first."""
        if self.ended.done():
            return
        if not self.is_done and self.error is None:
            if error is not None:
                self.error = error  # how the connection failed says more than that the stream is incomplete
            try:
                self._write(self._note(self.reader.close()))
            except Exception:  # noqa: BLE001 - as above
                self._stumble()
            if self.is_done:
                self.error = None  # it was whole after all
        self._end()

    def on_whole(self, body: bytes) -> None:
        """A reply that came whole in place of a stream: most of its own format's readers can tell it as one."""
        self.on_data(body)
        self.on_end(None)
        if self.error is not None and self.error.kind == "cut":
            self.error = ProviderError("the provider answered application/json where a stream was due", kind="bad_reply", provider_status=200)

    def _stumble(self) -> None:
        """What the provider sent is beyond our reader: a bug of ours, and its stream ends here as any that cannot be read."""
        log.exception("a stream could not be read")
        self._fail(ProviderError("the provider's stream could not be read", kind="bad_reply"))
        self._end()

    def _note(self, events: list[Event]) -> list[Event]:
        """Keeps what the events say of usage, errors and the end; returns those to be written (an error ends them)."""
        for place, event in enumerate(events):
            if event.usage is not None:
                self.usage = event.usage
                self.raw_usage = event.raw_usage
                self.service_tier = event.service_tier or self.service_tier
            if event.error is not None:
                self._fail(event.error)
                # Text that came beside the error still reaches a client who has the text before it.
                return events[: place + 1] if event.chunk is not None and self._is_forwarding else events[:place]
            if event.is_done:
                self.is_done = True
        return events

    def _write(self, events: list[Event]) -> None:
        """What says nothing yet (a role, an empty piece) waits for what does: as long as nothing was said another target may stand in."""
        held = self._held
        if held is not None:
            held += events
            if not self.is_done and len(held) < MAX_HELD_EVENTS and not any(map(_says_something, events)):
                return
            events, self._held = held, None
        if events:
            self._deliver(self.writer.write(events))

    def _fail(self, error: ProviderError) -> None:
        if self.error is None:
            self.error = error

    def _end(self) -> None:
        if not self.opened.done():
            self.opened.set_result(self.error is None)
        if not self.ended.done():
            self.ended.set_result(None)

    # --- client side ---

    def _deliver(self, data: bytes) -> None:
        if not data:
            return
        if self.first_byte_at < 0:
            self.first_byte_at = self._now()
        if self.is_aborted:
            self._drained_bytes += len(data)
            if self._drained_bytes > MAX_DRAIN_BYTES:
                self._fail(ProviderError("the stream went on long after the client left", kind="cut"))
                self._end()
                self.source.abort()
            return
        if self._is_forwarding:
            self._send(data)
            return
        self._pending += data
        if not self.opened.done():
            self.opened.set_result(True)

    def _send(self, data: bytes) -> None:
        is_full = self.sink.send(data)
        self.last_write = self._now()
        if is_full and not self._is_paused:
            self._is_paused = True
            self.source.pause()

    def forward(self) -> bytes:
        """From now on pieces go straight to the client, whose reply has been started; returns what was held back until here."""
        self._is_forwarding = True
        pending, self._pending = self._pending, b""
        self.last_write = self._now()
        return pending

    def on_drain(self) -> None:
        if self._is_paused and not self.is_aborted:
            self._is_paused = False
            self.source.resume()

    def on_gone(self) -> None:
        """The client left: stop where stopping ends the bill, otherwise read on without it to learn what it will be."""
        if self.is_aborted or self.ended.done():
            return
        self.is_aborted = True
        if self.stops_on_cancel:
            self.stop()
            self.source.abort()
        elif self._is_paused:
            self._is_paused = False
            self.source.resume()

    def stop(self) -> None:
        """Nothing more is wanted of this stream."""
        self.is_aborted = True
        self._end()

    def keep_alive(self, now: float, after_s: float) -> None:
        """A comment after `after_s` of silence, on a started stream whose client still reads."""
        sink = self.sink
        if now - self.last_write >= after_s and sink.is_started and not sink.is_gone and not sink.is_full:
            data = self.writer.keep_alive()
            if data:
                sink.send(data)
            self.last_write = now


def _says_something(event: Event) -> bool:
    chunk = event.chunk
    if chunk is None:
        return bool(event.raw)
    return event.texts is not None or any(
        delta.text or delta.reasoning or delta.refusal or delta.tool_calls or delta.finish_reason or delta.logprobs
        or delta.signature or delta.encrypted or delta.citations or delta.parts or any(delta.delta_bag.values())
        for delta in chunk.deltas
    )  # fmt: skip
