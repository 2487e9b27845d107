"""Streams of OpenAI Responses, from provider bytes to events. Pure; one reader per attempt.

Each event of the wire becomes one chunk: what it adds in the neutral form, and in its bag the whole event, for a writer of this same format.
Deltas that differ only in their text and number travel as plain runs (template.py).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.events import Event
from aigate.core.neutral import Bag, Chunk, Citation, Delta, Opaque, ToolCallDelta
from aigate.core.sse import read_block
from aigate.core.target import Target
from aigate.dialects.block_reader import BlockReader
from aigate.dialects.body import read_time
from aigate.dialects.openai_responses_items import CALL_INPUTS, NAME, kind_of, read_annotation, reasoning_proof
from aigate.dialects.openai_responses_reply import finish_reason, read_failure
from aigate.dialects.openai_usage import read_usage_object

_PADDING = re.compile(rb',"obfuscation": ?"[^"\\]*"')
_NUMBER = re.compile(rb'"sequence_number": ?\d+')  # in a string its quotes would be escaped: only the key itself matches
_NO_NUMBER = b'"sequence_number":0'
_TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_MEANINGLESS = ("message", "reasoning", *CALL_INPUTS)  # items whose meaning came in deltas

_decode = msgspec.json.decode
_encode = msgspec.json.encode


class ResponsesStreamReader(BlockReader):
    __slots__ = ("_quirks", "_calls", "_called", "_thought")

    def __init__(self, target: Target, is_spliced: bool):
        super().__init__(is_spliced)
        self._quirks = target.quirks
        self._calls: dict[int, tuple[int, str]] = {}  # output_index → (index of the tool call, kind)
        self._called: set[int] = set()  # output_index of calls of which an argument came
        self._thought: set[int] = set()  # output_index of reasoning items of which a text came

    def _read_run(self, run: bytes) -> list[Event]:
        if b'"obfuscation"' in run:
            run = _PADDING.sub(b"", run)
        if self._is_spliced:
            run = _NUMBER.sub(_NO_NUMBER, run)  # a writer of this format numbers anew
        return self._read_blocks(run)

    def _read_block(self, block: bytes) -> Event | None:
        payload = read_block(block)
        event = self._read_payload(payload) if payload else None
        chunk = None if event is None else event.chunk
        if chunk is not None and chunk.deltas:
            delta = chunk.deltas[0]
            self._keep(delta.text, delta.reasoning, delta.refusal, *(call.arguments for call in delta.tool_calls))
            if chunk.bag["type"].endswith(".delta"):
                self._learn(block, chunk)
        return event

    def _read_again(self, block: bytes) -> Chunk | None:
        payload = read_block(block)
        event = None if payload is None else self._read_payload(payload)
        return None if event is None else event.chunk

    # --- events -------------------------------------------------------------------------------------------------------------

    def _read_payload(self, payload: bytes) -> Event | None:
        """The event; None for what is none (a ping, [DONE], what is no JSON)."""
        try:
            fields = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        kind = fields.get("type") if type(fields) is dict else None
        if not isinstance(kind, str):
            error = fields.get("error") if type(fields) is dict else None
            return self._fail(error) if error else None
        if kind == "error":
            return self._fail(fields["error"] if type(fields.get("error")) is dict else fields)
        fields.pop("obfuscation", None)
        event = Event(count=1, chunk=Chunk(bag=fields, dialect=NAME))
        if type(fields.get("response")) is dict:
            self._read_lifecycle(kind, fields["response"], event)
            return event
        read = _DELTAS.get(kind)
        delta = None if read is None else read(self, fields)
        if delta is not None:
            event.chunk.deltas = [delta]  # type: ignore[union-attr]
        return event

    def _fail(self, fields: Any) -> Event:
        self._has_failed = True
        return Event(count=1, error=read_failure(fields))

    def _read_lifecycle(self, kind: str, response: Bag, event: Event) -> None:
        chunk = event.chunk
        assert chunk is not None
        reply_id, created, model = response.get("id"), response.get("created_at"), response.get("model")
        chunk.id = reply_id if isinstance(reply_id, str) else ""
        chunk.created = read_time(created)
        chunk.model = model if isinstance(model, str) else ""
        usage = response.get("usage")
        if type(usage) is dict and usage:
            event.usage = read_usage_object(usage, self._quirks)
            if event.usage is not None:
                event.raw_usage = _encode(usage)
                tier = response.get("service_tier")
                event.service_tier = tier if isinstance(tier, str) else ""
        if kind == "response.created":
            chunk.deltas = [Delta(0, role="assistant")]
        elif kind in _TERMINAL:
            self._end(kind, response, event)

    def _end(self, kind: str, response: Bag, event: Event) -> None:
        if kind == "response.failed":
            self._has_failed = True
            event.error, event.chunk = read_failure(response.get("error") or {}), None
            return
        finish = finish_reason(response, [])
        if finish == "stop" and self._calls:
            finish = "tool_calls"
        event.chunk.deltas = [Delta(0, finish_reason=finish)]  # type: ignore[union-attr]
        event.is_final = event.is_done = self._is_done = True

    # --- what events add ----------------------------------------------------------------------------------------------------

    def _read_text(self, fields: Bag) -> Delta:
        logprobs = fields.get("logprobs")
        return Delta(0, text=_string(fields), logprobs={"content": logprobs} if type(logprobs) is list and logprobs else None)

    def _read_refusal(self, fields: Bag) -> Delta:
        return Delta(0, refusal=_string(fields))

    def _read_reasoning(self, fields: Bag) -> Delta:
        self._thought.add(_place(fields))
        return Delta(0, reasoning=_string(fields))

    def _read_reasoning_part(self, fields: Bag) -> Delta | None:
        """Several parts of a reasoning item read as paragraphs."""
        part = fields.get("part")
        is_content = type(part) is dict and part.get("type") not in ("summary_text", "reasoning_text")
        return None if is_content or _place(fields) not in self._thought else Delta(0, reasoning="\n\n")

    def _read_arguments(self, fields: Bag) -> Delta | None:
        call = self._calls.get(_place(fields))
        if call is None:
            return None
        self._called.add(_place(fields))
        return Delta(0, tool_calls=[ToolCallDelta(call[0], arguments=_string(fields), kind=call[1])])

    def _read_annotation(self, fields: Bag) -> Delta | None:
        annotation = fields.get("annotation")
        return Delta(0, citations=[_copy_annotation(annotation)]) if type(annotation) is dict else None

    def _read_added(self, fields: Bag) -> Delta | None:
        item, place = fields.get("item"), _place(fields)
        kind = kind_of(item) if type(item) is dict else ""
        key = CALL_INPUTS.get(kind)
        if key is None or place in self._calls:
            return None
        assert type(item) is dict
        index = len(self._calls)
        neutral_kind = "function" if kind == "function_call" else "custom"
        self._calls[place] = (index, neutral_kind)
        given = item.get(key)
        if given:
            self._called.add(place)
        call_id, name = item.get("call_id") or item.get("id"), item.get("name")
        arguments = given if isinstance(given, str) else ""
        call = ToolCallDelta(index, str(call_id or f"call_{index}"), str(name or ""), arguments, neutral_kind)
        return Delta(0, tool_calls=[call])

    def _read_done(self, fields: Bag) -> Delta | None:
        """What only a whole item tells: proofs of reasoning, arguments that came without deltas, items with no finer grain."""
        item, place = fields.get("item"), _place(fields)
        if type(item) is not dict:
            return None
        kind = kind_of(item)
        if kind == "reasoning" and isinstance(item.get("encrypted_content"), str):
            signature, whole = reasoning_proof(item.get("id"), item["encrypted_content"], place in self._thought)
            return Delta(0, signature=signature, encrypted=whole, origin=NAME)
        if kind in CALL_INPUTS and place in self._calls:
            given = item.get(CALL_INPUTS[kind])
            if place in self._called or not isinstance(given, str) or not given:
                return None
            index, neutral_kind = self._calls[place]
            return Delta(0, tool_calls=[ToolCallDelta(index, arguments=given, kind=neutral_kind)])
        if kind in _MEANINGLESS:
            return None
        return Delta(0, parts=[Opaque(NAME, Raw(_encode(item)), kind)])


def _place(fields: Bag) -> int:
    place = fields.get("output_index")
    return place if type(place) is int else -1


def _string(fields: Bag) -> str:
    value = fields.get("delta")
    return value if isinstance(value, str) else ""


def _copy_annotation(annotation: Bag) -> Citation:
    return read_annotation(dict(annotation))


_DELTAS: dict[str, Callable[[ResponsesStreamReader, Bag], Delta | None]] = {
    "response.output_text.delta": ResponsesStreamReader._read_text,
    "response.refusal.delta": ResponsesStreamReader._read_refusal,
    "response.reasoning_summary_text.delta": ResponsesStreamReader._read_reasoning,
    "response.reasoning_text.delta": ResponsesStreamReader._read_reasoning,
    "response.reasoning_summary_part.added": ResponsesStreamReader._read_reasoning_part,
    "response.content_part.added": ResponsesStreamReader._read_reasoning_part,
    "response.function_call_arguments.delta": ResponsesStreamReader._read_arguments,
    "response.custom_tool_call_input.delta": ResponsesStreamReader._read_arguments,
    "response.output_text.annotation.added": ResponsesStreamReader._read_annotation,
    "response.output_item.added": ResponsesStreamReader._read_added,
    "response.output_item.done": ResponsesStreamReader._read_done,
}
