"""Streams of Anthropic Messages, from provider bytes to events. Pure; one reader per attempt.

Each event's chunk says what it means and keeps the event itself in its bag, so that a writer of this format passes it on as it came.
Deltas that repeat a learnt template (template.py) are not decoded.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.events import Event
from aigate.core.neutral import Bag, Chunk, Delta, Opaque, ToolCallDelta
from aigate.core.sse import read_block
from aigate.core.target import Target
from aigate.dialects.anthropic_errors import read_error_object
from aigate.dialects.anthropic_message import NAME, read_citation
from aigate.dialects.anthropic_reply import finish_reason
from aigate.dialects.anthropic_usage import read_usage
from aigate.dialects.block_reader import BlockReader

_PADDING = re.compile(rb" +\}\n\n")  # the vendor hides how long a delta is behind spaces before its last bracket
_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class AnthropicStreamReader(BlockReader):
    __slots__ = ("_usage", "_open", "_calls", "_has_arguments")

    def __init__(self, target: Target, is_spliced: bool):
        super().__init__(is_spliced)
        self._usage: Bag = {}  # the provider's object: what message_start says, and what message_delta replaces of it
        self._open = ""  # kind of the content block that is open
        self._calls = -1  # index of the last tool call
        self._has_arguments = False

    def _read_run(self, run: bytes) -> list[Event]:
        if b" }\n\n" in run:
            run = _PADDING.sub(b"}\n\n", run)
        return self._read_blocks(run)

    # --- blocks -------------------------------------------------------------------------------------------------------------

    def _is_told(self, event: Event) -> bool:
        return event.chunk is None or bool(event.chunk.deltas)

    def _read_block(self, block: bytes) -> Event | None:
        event = self._read_event(block)
        if event is None or event.chunk is None:
            return event
        for delta in event.chunk.deltas:
            self._keep(delta.reasoning, delta.text, *(call.arguments for call in delta.tool_calls))
        if event.is_final:
            self._is_final = True
            self._template = None
        elif len(event.chunk.deltas) == 1:
            self._learn(block, event.chunk)
        return event

    def _read_again(self, block: bytes) -> Chunk | None:
        """Only deltas are ever learnt, and those leave no state."""
        event = self._read_event(block)
        return None if event is None else event.chunk

    # --- events -------------------------------------------------------------------------------------------------------------

    def _read_event(self, block: bytes) -> Event | None:
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
            self._is_done = self._has_failed = True
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
