"""Merge: the streams of several choices as one stream to the client. Each choice has a branch, which stands for the exchange, and a writer.

It only puts together what arrives: who is asked, what is paid and how the stream ends is said elsewhere. Nothing of one choice waits for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from aigate.core.events import Event
from aigate.core.neutral import Chunk
from aigate.dialects.dialect import Settlement, StreamWriter
from aigate.errors import GateError
from aigate.inner import InnerCall
from aigate.worker.heads import FieldBlock
from aigate.worker.listener import Exchange


class Merge:
    """`start` is called with the branch that has something to send first, to begin the reply."""

    def __init__(self, exchange: Exchange, writer: StreamWriter, start: Callable[[Branch], None]):
        self.exchange = exchange
        self.writer = writer
        self.start = start
        self._listening: list[Branch] = []  # those with a stream under way
        self._id = ""
        self._created = 0
        self._count = 0  # choices that have begun
        self._sent = 0  # … of which something was sent
        self._early: dict[int, bytes] = {}  # what choices have to send whose predecessors have sent nothing yet

    def next_index(self) -> int:
        """Choices are numbered as they begin: a reader that folds them wants the first one first."""
        self._count += 1
        return self._count - 1

    def send(self, index: int, data: bytes) -> None:
        """In the order that choices begin in: the SDKs' helpers do not take the second one's first chunk before the first one's."""
        if index > self._sent:
            self._early[index] = self._early.get(index, b"") + data
            return
        self.exchange.send(data)
        if index == self._sent:
            self._sent += 1
            while (early := self._early.pop(self._sent, None)) is not None:
                self.exchange.send(early)
                self._sent += 1

    def rest(self) -> bytes:
        """At the end: what waits still, as a choice before it was given up in between."""
        return b"".join(self._early.pop(index) for index in sorted(self._early))

    def listen(self, branch: Branch, is_on: bool) -> None:
        if is_on and branch not in self._listening:
            self._listening.append(branch)
        elif not is_on and branch in self._listening:
            self._listening.remove(branch)
        self.exchange.on_gone = self._gone if self._listening else None
        self.exchange.on_drain = self._drained if self._listening else None

    def _gone(self) -> None:
        for branch in list(self._listening):
            if branch.on_gone is not None:
                branch.on_gone()

    def _drained(self) -> None:
        for branch in list(self._listening):
            if branch.on_drain is not None:
                branch.on_drain()

    def one_of(self, chunk: Chunk, index: int) -> Chunk:
        """The chunk of a choice that was asked for alone, as one of this stream's: all its chunks have one id and one time."""
        self._id = self._id or chunk.id
        self._created = self._created or chunk.created
        return replace(chunk, id=self._id, created=self._created, deltas=[replace(delta, index=index) for delta in chunk.deltas])


class Branch:
    """What one choice sees of the exchange (worker/listener.Exchange)."""

    __slots__ = ("place", "on_drain", "_merge", "_writer", "_on_gone")

    def __init__(self, merge: Merge, place: int, writer: BranchWriter):
        self.place = place  # among the runs
        self._writer = writer
        self.on_drain: Callable[[], None] | None = None
        self._merge = merge
        self._on_gone: Callable[[], None] | None = None

    @property
    def on_gone(self) -> Callable[[], None] | None:
        return self._on_gone

    @on_gone.setter
    def on_gone(self, called: Callable[[], None] | None) -> None:
        self._on_gone = called
        self._merge.listen(self, called is not None)

    @property
    def request_id(self) -> str:
        return self._merge.exchange.request_id

    @property
    def headers(self) -> dict[bytes, bytes]:
        return self._merge.exchange.headers

    @property
    def inner(self) -> InnerCall | None:
        return self._merge.exchange.inner

    @property
    def started_at(self) -> float:
        return self._merge.exchange.started_at

    @property
    def is_gone(self) -> bool:
        return self._merge.exchange.is_gone

    @property
    def is_started(self) -> bool:
        return self._merge.exchange.is_started

    @property
    def is_full(self) -> bool:
        return self._merge.exchange.is_full

    def start(self, _status: int, _fields: FieldBlock) -> None:
        self._merge.start(self)

    def send(self, data: bytes) -> bool:
        index = self._writer.index
        if index is None:
            self._merge.exchange.send(data)  # nothing of a choice yet: it keeps the stream open
        elif data:
            self._merge.send(index, data)
        return self.is_full

    end_with = send  # this choice has ended, not the stream

    def abort(self) -> None:
        self._merge.exchange.abort()


class BranchWriter:
    """Keeps `StreamWriter`: the events of one choice, under its index, by the writer that all share. The end is the merged stream's."""

    __slots__ = ("index", "_merge", "_template", "_mapped")

    def __init__(self, merge: Merge):
        self.index: int | None = None
        self._merge = merge
        self._template: Chunk | None = None
        self._mapped: Chunk | None = None

    def write(self, events: Sequence[Event]) -> bytes:
        return self._merge.writer.write([self._under_index(event) for event in events if event.chunk is not None])

    def finish(self, settlement: Settlement) -> bytes:
        return b""

    def fail(self, error: GateError, request_id: str) -> bytes:
        return b""

    def keep_alive(self) -> bytes:
        return self._merge.writer.keep_alive()

    def _under_index(self, event: Event) -> Event:
        assert event.chunk is not None
        if self.index is None:
            self.index = self._merge.next_index()
        if event.texts is None:
            return replace(event, chunk=self._merge.one_of(event.chunk, self.index))
        if event.chunk is not self._template:  # the next runs have the same one
            self._template, self._mapped = event.chunk, self._merge.one_of(event.chunk, self.index)
        return replace(event, chunk=self._mapped)
