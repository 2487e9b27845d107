import asyncio
from collections.abc import Sequence

import pytest

from aigate.core.events import Event
from aigate.core.neutral import Chunk, Delta
from aigate.core.usage import Usage
from aigate.errors import ProviderError
from aigate.worker.relay import MAX_HELD_EVENTS, Relay

USAGE = Usage(3, 2)


class Script:
    """A reader whose pieces are words: each stands for an event or a few."""

    def feed(self, data: bytes) -> list[Event]:
        words = {
            b"text": [Event(raw=b"text", count=1)],
            b"usage": [Event(raw=b"u", usage=USAGE, raw_usage=b"{}")],
            b"done": [Event(is_done=True)],
            b"error": [Event(error=ProviderError("broke", kind="error"))],
            b"text+error": [Event(raw=b"text", count=1), Event(error=ProviderError("broke", kind="error"))],
            b"comment": [],
            b"role": [Event(count=1, chunk=Chunk(deltas=[Delta(0, role="assistant", text="")]))],
            b"word": [Event(count=1, chunk=Chunk(deltas=[Delta(0, text="word")]))],
        }
        return words[data]

    def __init__(self, at_end: Sequence[Event] = ()):
        self.at_end = list(at_end)

    def close(self) -> list[Event]:
        return self.at_end

    def text_so_far(self) -> tuple[str, int]:
        return "", 0


class Writer:
    def write(self, events: Sequence[Event]) -> bytes:
        return b"".join(event.raw or (event.chunk.deltas[0].text or "role").encode() if event.chunk or event.raw else b"" for event in events)

    def keep_alive(self) -> bytes:
        return b":\n\n"


class Sink:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.is_gone = self.is_started = self.is_full = False
        self.on_gone = self.on_drain = None

    def send(self, data: bytes) -> bool:
        self.sent.append(data)
        return self.is_full

    def abort(self) -> None:
        self.is_gone = True


class Source:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.relay: Relay | None = None

    def pause(self) -> None:
        self.said.append("pause")

    def resume(self) -> None:
        self.said.append("resume")

    def abort(self) -> None:
        self.said.append("abort")
        self.relay.on_end(ProviderError("given up", kind="cut"))  # as the real one does


def relay(at_end: Sequence[Event] = ()) -> Relay:
    loop = asyncio.new_event_loop()
    made = Relay(Sink(), Source(), Script(at_end), Writer(), loop)
    made.source.relay = made
    loop.close()
    return made


def begun() -> Relay:
    made = relay()
    made.on_data(b"text")
    made.sink.is_started = True
    assert made.forward() == b"text"
    return made


def test_nothing_reaches_the_client_before_the_spine_opens_the_stream():
    made = relay()
    made.on_data(b"comment")
    assert not made.opened.done()
    made.on_data(b"text")
    made.on_data(b"text")
    assert made.opened.result() is True
    assert made.sink.sent == []
    assert made.forward() == b"texttext"
    made.on_data(b"text")
    assert made.sink.sent == [b"text"]


def test_an_error_before_the_first_event_leaves_room_for_a_fallback():
    made = relay()
    made.on_data(b"error")
    assert made.opened.result() is False
    assert made.error.kind == "error"
    assert made.ended.done()


def test_an_error_after_text_keeps_the_text():
    made = relay()
    made.on_data(b"text+error")
    assert made.opened.result() is True
    assert made.ended.done()
    assert made.forward() == b"text"
    assert made.error is not None


def test_the_terminal_event_ends_it_and_nothing_later_passes():
    made = begun()
    made.on_data(b"usage")
    made.on_data(b"done")
    made.on_data(b"text")
    made.on_end(None)
    assert made.sink.sent == [b"u"]
    assert (made.usage, made.raw_usage, made.error) == (USAGE, b"{}", None)
    assert made.ended.done()


def test_a_connection_lost_before_the_terminal_event_is_an_error():
    made = begun()
    made.on_end(ProviderError("lost", kind="cut"))
    assert made.error.kind == "cut"
    assert made.ended.done()


def test_a_body_that_ends_without_its_terminal_event_is_what_the_reader_says():
    made = relay([Event(error=ProviderError("cut short", kind="cut"))])
    made.on_data(b"text")
    made.on_end(None)
    assert made.error.message == "cut short"
    whole = relay([Event(is_done=True)])
    whole.on_data(b"text")
    whole.on_end(None)
    assert whole.error is None


def test_a_slow_client_pauses_the_provider_until_it_has_drained():
    made = begun()
    made.sink.is_full = True
    made.on_data(b"text")
    made.on_data(b"text")
    assert made.source.said == ["pause"]
    made.on_drain()
    made.on_drain()
    assert made.source.said == ["pause", "resume"]


def test_a_client_that_leaves_stops_a_provider_that_stops_billing():
    made = begun()
    made.stops_on_cancel = True
    made.on_gone()
    assert made.source.said == ["abort"]
    assert made.ended.done() and made.is_aborted
    assert made.error is None  # we gave it up; the provider did not fail


def test_a_client_that_leaves_does_not_stop_a_provider_that_bills_all():
    made = begun()
    made.sink.is_full = True
    made.on_data(b"text")
    made.on_gone()
    made.on_data(b"text")
    made.on_data(b"usage")
    made.on_data(b"done")
    assert made.source.said == ["pause", "resume"]
    assert made.sink.sent == [b"text"]  # nothing after it left
    assert made.usage == USAGE


def test_a_comment_after_silence_and_only_then():
    made = begun()
    made.keep_alive(made.last_write + 14, 15)
    assert made.sink.sent == []
    made.keep_alive(made.last_write + 15, 15)
    assert made.sink.sent == [b":\n\n"]


class Stumbling(Script):
    """Fails on what it did not expect."""

    def feed(self, data: bytes) -> list[Event]:
        if data == b"odd":
            raise ValueError("unforeseen")
        return super().feed(data)

    def close(self) -> list[Event]:
        raise ValueError("unforeseen")


@pytest.mark.parametrize("at_end", [False, True])
def test_a_reader_that_fails_ends_its_stream_as_one_that_cannot_be_read(at_end, caplog):
    stream = relay()
    stream.reader = Stumbling()
    stream.on_data(b"text")
    if at_end:
        stream.on_end(None)
    else:
        stream.on_data(b"odd")
    assert stream.ended.done() and stream.opened.result()
    assert stream.error is not None and stream.error.kind == "bad_reply"
    assert "unforeseen" in caplog.text


def test_a_role_alone_leaves_room_for_a_fallback():
    made = relay()
    made.on_data(b"role")
    assert not made.opened.done() and made.first_byte_at < 0
    made.on_data(b"error")
    assert made.opened.result() is False and made.error.kind == "error"


@pytest.mark.parametrize("then", [b"word", b"text", b"done"])
def test_what_was_held_back_comes_before_what_says_something(then):
    made = relay()
    made.on_data(b"role")
    made.on_data(then)
    assert made.opened.result() is True
    assert made.forward() == b"role" + (b"" if then == b"done" else then)


def test_a_stream_that_says_nothing_for_long_begins_all_the_same():
    made = relay()
    for _ in range(MAX_HELD_EVENTS):
        made.on_data(b"role")
    assert made.opened.result() is True and made.forward() == b"role" * MAX_HELD_EVENTS
