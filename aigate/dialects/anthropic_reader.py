"""Streams of Anthropic Messages, from provider bytes to events. Pure; one reader per attempt.

Each event's chunk says what it means and keeps the event itself in its bag, so that a writer of this format passes it on as it came.
Deltas that repeat a learnt template (openai_chat_splice.py) are not decoded.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.events import Event
from aigate.core.neutral import Bag, Chunk, Delta, Opaque, ToolCallDelta
from aigate.core.sse import BlockSplitter, read_block
from aigate.core.target import Target
from aigate.dialects.anthropic_errors import read_error_object
from aigate.dialects.anthropic_message import NAME, read_citation
from aigate.dialects.anthropic_reply import finish_reason
from aigate.dialects.anthropic_usage import read_usage
from aigate.dialects.openai_chat_splice import Template, learn
from aigate.dialects.texts import MAX_EVENT_BYTES, KeptText
from aigate.errors import ProviderError

MAX_LESSONS = 16  # templates learnt in a row without one match: then this stream has none

_PADDING = re.compile(rb" +\}\n\n")  # the vendor hides how long a delta is behind spaces before its last bracket
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class AnthropicStreamReader:
    __slots__ = (
        "_is_spliced", "_blocks", "_template", "_lessons", "_kept", "_usage", "_open", "_calls", "_has_arguments", "_is_done", "_is_final",
        "_has_failed",
    )  # fmt: skip

    def __init__(self, target: Target, is_spliced: bool):
        self._is_spliced = is_spliced
        self._blocks = BlockSplitter()
        self._template: Template | None = None
        self._lessons = 0
        self._kept = KeptText()
        self._usage: Bag = {}  # the provider's object: what message_start says, and what message_delta replaces of it
        self._open = ""  # kind of the content block that is open
        self._calls = -1  # index of the last tool call
        self._has_arguments = False
        self._is_done = self._is_final = self._has_failed = False

    def feed(self, data: bytes) -> list[Event]:
        run = self._blocks.feed(data)
        if not run:
            return self._check_size()
        if b" }\n\n" in run:
            run = _PADDING.sub(b"}\n\n", run)
        return self._read_blocks(run)

    def close(self) -> list[Event]:
        rest = self._blocks.close()
        events: list[Event] = []
        if rest and not self._is_done:
            if rest.lstrip().startswith(b"{"):  # no stream but a JSON body
                rest = b"data: " + rest.replace(b"\n", b" ")
            events = [event for event in self._read_blocks(rest + b"\n\n") if event.chunk is None or event.chunk.deltas]
        if not self._is_done and not self._has_failed:
            if self._is_final:
                events.append(Event(is_done=True))
            else:
                events.append(Event(error=ProviderError("the provider's stream ended before it was complete", kind="cut")))
        return events

    def text_so_far(self) -> tuple[str, int]:
        return self._kept.text(), self._kept.more_bytes

    def _check_size(self) -> list[Event]:
        if self._blocks.held_bytes <= MAX_EVENT_BYTES or self._has_failed:
            return []
        self._has_failed = True
        return [Event(error=ProviderError(f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes", kind="bad_reply"))]

    # --- blocks -------------------------------------------------------------------------------------------------------------

    def _read_blocks(self, run: bytes) -> list[Event]:
        events: list[Event] = []
        at, end = 0, len(run)
        refused = None  # the template whose events are taken one by one, lest each of many looks at all that is left
        while at < end and not self._is_done and not self._has_failed:
            template = self._template
            if template is not None and run.startswith(template.head, at):
                found = None if template is refused else template.match_run(run, at)
                if found is None:
                    refused = template
                    found = template.match_first(run, at)
                if found is not None:
                    texts, joined, at = found
                    self._lessons = 0
                    self._kept.add(joined, len(joined))
                    last = events[-1] if events else None
                    if last is not None and last.texts is not None and last.chunk is template.chunk:
                        last.texts += texts
                        last.count += len(texts)
                    else:
                        events.append(Event(b"", len(texts), template.chunk, texts))
                    continue
            if run[at] == 0x0A:  # more blank lines than one
                at += 1
                continue
            stop = run.find(b"\n\n", at) + 2
            event = self._read_event(run[at:stop])
            at = stop
            if event is not None:
                events.append(event)
        return events

    def _read_event(self, block: bytes) -> Event | None:
        event = self._read_block(block)
        if event is None or event.chunk is None:
            return event
        for delta in event.chunk.deltas:
            self._keep_delta(delta)
        if event.is_final:
            self._is_final = True
            self._template = None
        elif self._is_spliced and len(event.chunk.deltas) == 1 and self._lessons < MAX_LESSONS:
            template = learn(block, event.chunk, self._read_again)
            if template is not None:
                self._template = template
                self._lessons += 1
        return event

    def _read_again(self, block: bytes) -> Chunk | None:
        """Only deltas are ever learnt, and those leave no state."""
        event = self._read_block(block)
        return None if event is None else event.chunk

    def _keep_delta(self, delta: Delta) -> None:
        for text in (delta.reasoning, delta.text, *(call.arguments for call in delta.tool_calls)):
            if text:
                self._kept.add(text, len(text))

    # --- events -------------------------------------------------------------------------------------------------------------

    def _read_block(self, block: bytes) -> Event | None:
        payload = read_block(block)
        if not payload or payload.strip() == b"[DONE]":
            return None
        event = Event(count=1, chunk=Chunk(dialect=NAME, bag={"block": block}))
        try:
            fields = _decode(payload)
        except _UNREADABLE:
            return event
        kind = fields.get("type") if type(fields) is dict else None
        if not block.startswith(b"event:") and isinstance(kind, str):  # clients pass over events without a name
            event.chunk.bag = {"block": b"event: %b\ndata: %b\n\n" % (kind.encode(errors="replace"), payload)}  # type: ignore[union-attr]
        if kind == "content_block_delta":
            self._read_delta(fields.get("delta"), event)
        elif kind == "content_block_start":
            self._read_start(fields.get("content_block"), event)
        elif kind == "content_block_stop":
            if self._open == "tool_use" and not self._has_arguments:  # an empty input may come without a fragment
                self._add(event, tool_calls=[ToolCallDelta(self._calls, arguments="{}")])
            self._open = ""
        elif kind == "message_start":
            self._read_message(fields, event)
        elif kind == "message_delta":
            self._read_end(fields, event)
        elif kind == "message_stop":
            self._is_done = event.is_done = True
            event.chunk = None
        elif kind == "error" or (type(fields) is dict and fields.get("error")):
            event.error = read_error_object(fields.get("error"))
            event.chunk = None
            self._has_failed = True
        return event

    def _add(self, event: Event, **fields: Any) -> None:
        assert event.chunk is not None
        event.chunk.deltas = [Delta(0, **fields)]

    def _read_message(self, fields: Bag, event: Event) -> None:
        message = fields.get("message")
        assert event.chunk is not None
        if type(message) is not dict:
            return
        reply_id, model, usage = message.get("id"), message.get("model"), message.get("usage")
        event.chunk.id = reply_id if isinstance(reply_id, str) else ""
        event.chunk.model = model if isinstance(model, str) else ""
        event.chunk.bag = {"message_start": fields}
        if type(usage) is dict:
            self._usage = dict(usage)
        self._add(event, role="assistant")

    def _read_end(self, fields: Bag, event: Event) -> None:
        ends, usage = fields.get("delta"), fields.get("usage")
        ends = ends if type(ends) is dict else {}
        assert event.chunk is not None
        event.chunk.bag = {"message_delta": {**fields, "delta": ends}}
        if type(usage) is dict:
            self._usage |= {key: value for key, value in usage.items() if value is not None}
        if self._usage:
            event.usage = read_usage(self._usage)
            event.raw_usage = b"" if event.usage is None else _encode(self._usage)
            tier = self._usage.get("service_tier")
            event.service_tier = tier if isinstance(tier, str) else ""
        if ends.get("stop_reason") is not None:
            event.is_final = True
            self._add(event, finish_reason=finish_reason(ends["stop_reason"]))

    def _read_start(self, block: Any, event: Event) -> None:
        kind = block.get("type") if type(block) is dict else None
        self._open = kind if isinstance(kind, str) else "?"
        if kind == "text":
            if isinstance(block.get("text"), str) and block["text"]:
                self._add(event, text=block["text"])
        elif kind == "thinking":
            if isinstance(block.get("thinking"), str) and block["thinking"]:
                self._add(event, reasoning=block["thinking"])
        elif kind == "redacted_thinking":
            self._add(event, encrypted=str(block.get("data") or ""), origin=NAME)
        elif kind == "tool_use":
            self._calls += 1
            given = block.get("input")
            arguments = _encode(given).decode() if given else ""
            self._has_arguments = bool(arguments)
            self._add(event, tool_calls=[ToolCallDelta(self._calls, str(block.get("id") or ""), str(block.get("name") or ""), arguments)])
        else:
            self._add(event, parts=[Opaque(NAME, Raw(_encode(block)), self._open)])

    def _read_delta(self, delta: Any, event: Event) -> None:
        kind = delta.get("type") if type(delta) is dict else None
        if kind == "text_delta" and isinstance(delta.get("text"), str):
            self._add(event, text=delta["text"])
        elif kind == "thinking_delta" and isinstance(delta.get("thinking"), str):
            self._add(event, reasoning=delta["thinking"])
        elif kind == "input_json_delta" and isinstance(delta.get("partial_json"), str) and self._open == "tool_use":
            if delta["partial_json"]:
                self._has_arguments = True
                self._add(event, tool_calls=[ToolCallDelta(self._calls, arguments=delta["partial_json"])])
        elif kind == "signature_delta" and isinstance(delta.get("signature"), str):
            self._add(event, signature=delta["signature"], origin=NAME)
        elif kind == "citations_delta" and type(delta.get("citation")) is dict:
            self._add(event, citations=[read_citation(delta["citation"])])
