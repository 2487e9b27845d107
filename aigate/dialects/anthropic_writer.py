"""Streams of Anthropic Messages, from events to client bytes. Pure; one writer per stream.

Keeps what the official SDKs insist on: a named event each time, message_start first and once, blocks numbered from 0 that never
interleave, and one message_delta with the settled usage before message_stop. Events that came in this format pass as they came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigate.core.events import HOLE, Event
from aigate.core.neutral import Bag, Chunk, Citation, Delta, Part, ToolCallDelta
from aigate.dialects.anthropic_errors import write_error
from aigate.dialects.anthropic_message import NAME, seal_reasoning, tool_id, write_citation
from aigate.dialects.anthropic_reply import message_id, stop_reason, write_answer_block, write_call_proof
from aigate.dialects.anthropic_usage import write_usage
from aigate.dialects.dialect import Settlement
from aigate.errors import GateError

_HOLE = HOLE.encode()
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_encode = msgspec.json.encode
_decode = msgspec.json.decode


def event_bytes(fields: Bag) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), _encode(fields))


class _Call(msgspec.Struct):
    """A tool call of a foreign stream: `index` there, and the fragments of its arguments so far (str, or insides of JSON strings)."""

    index: int
    id: str
    name: str
    fragments: list[str | bytes] = []

    def arguments(self) -> str:
        return "".join(piece if isinstance(piece, str) else _decode(b'"' + piece + b'"', type=str) for piece in self.fragments)

    def is_whole(self) -> bool:
        try:
            return isinstance(_decode(self.arguments()), dict)
        except (msgspec.DecodeError, RecursionError):
            return False


class AnthropicStreamWriter:
    __slots__ = (
        "_asked", "_reply_id", "_is_begun", "_block", "_kind", "_call", "_waiting", "_called", "_finish", "_ends", "_template",
        "_head", "_tail", "_joint",
    )  # fmt: skip

    def __init__(self, asked: str, reply_id: str):
        self._asked = asked
        self._reply_id = message_id(reply_id)
        self._is_begun = False
        self._block = -1  # index of the last content block
        self._kind = ""  # of the block that is open
        self._call: _Call | None = None  # the open tool call
        self._waiting: dict[int, _Call] = {}  # calls that began before the open one was whole
        self._called: set[int] = set()
        self._finish: str | None = None
        self._ends: Bag | None = None  # the provider's own message_delta
        self._template: Chunk | None = None
        self._head = self._tail = self._joint = b""

    def write(self, events: Sequence[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in events:
            chunk = event.chunk
            if chunk is None:
                continue
            if event.texts is None:
                pieces.append(self._write_chunk(chunk))
                continue
            if chunk is not self._template:
                pieces.append(self._learn(chunk))
            if self._joint:
                pieces.append(self._head + self._joint.join(event.texts) + self._tail)
            if self._call is not None and chunk.dialect != NAME:
                self._call.fragments += event.texts
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def finish(self, settlement: Settlement) -> bytes:
        pieces = [self._begin(), self._close()]
        for call in list(self._waiting.values()):
            pieces += (self._open_call(call), self._fragment(call.arguments()), self._close())
        usage = write_usage(settlement)
        if self._ends is not None:
            ends = {**self._ends, "usage": usage}
        else:
            reason = stop_reason(self._finish, bool(self._called))
            ends = {"type": "message_delta", "delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
        return b"".join((*pieces, event_bytes(ends), _STOP))

    def fail(self, error: GateError, request_id: str) -> bytes:
        return b"event: error\ndata: " + write_error(error, request_id) + b"\n\n"

    def keep_alive(self) -> bytes:
        return _PING

    # --- chunks -------------------------------------------------------------------------------------------------------------

    def _write_chunk(self, chunk: Chunk) -> bytes:
        self._template = None  # what was learnt holds for the open block only
        if chunk.dialect == NAME:
            return self._pass_on(chunk.bag)
        if chunk.id and not self._is_begun:
            self._reply_id = message_id(chunk.id)
        pieces = [self._begin()]
        for delta in chunk.deltas:
            if delta.index == 0:  # this format has one choice
                pieces += self._write_delta(delta)
        return b"".join(pieces)

    def _pass_on(self, bag: Bag) -> bytes:
        """An event of this very format, with the model's name as it was asked for."""
        block = bag.get("block")
        if block is not None:
            return block  # type: ignore[no-any-return]
        if "message_delta" in bag:
            ends = bag["message_delta"]
            self._ends = ends if self._ends is None else {**self._ends, **ends, "delta": {**self._ends["delta"], **ends["delta"]}}
            return b""
        if self._is_begun:
            return b""
        self._is_begun = True
        start = bag["message_start"]
        return event_bytes({**start, "message": {**start["message"], "model": self._asked}})

    def _learn(self, template: Chunk) -> bytes:
        """Encodes `template` once; returns what must go before its first text (the block's start, say)."""
        fragments = None if self._call is None else list(self._call.fragments)
        written = self._write_chunk(template)
        if self._call is not None:
            self._call.fragments = fragments or []
        self._template = template
        at = written.find(_HOLE)
        if at < 0:  # nothing of it is said in this format
            self._head = self._tail = self._joint = b""
            return written
        start = max(0, written.rfind(b"event: ", 0, at))
        self._head, self._tail = written[start:at], written[at + len(_HOLE) :]
        self._joint = self._tail + self._head
        return written[:start]

    def _write_delta(self, delta: Delta) -> list[bytes]:
        pieces: list[bytes] = []
        if delta.reasoning:
            pieces.append(self._open_as("thinking", {"type": "thinking", "thinking": "", "signature": ""}))
            pieces.append(self._delta({"type": "thinking_delta", "thinking": delta.reasoning}))
        if delta.signature is not None or delta.encrypted is not None:
            pieces.append(self._sign(delta))
        for text in (delta.text, delta.refusal):
            if text:
                pieces.append(self._open_text())
                pieces.append(self._delta({"type": "text_delta", "text": text}))
        pieces += map(self._cite, delta.citations)
        pieces += map(self._whole_part, delta.parts)
        pieces += map(self._write_call, delta.tool_calls)
        if delta.finish_reason is not None:
            self._finish = delta.finish_reason
        return pieces

    # --- blocks -------------------------------------------------------------------------------------------------------------

    def _begin(self) -> bytes:
        if self._is_begun:
            return b""
        self._is_begun = True
        message: Bag = {
            "id": self._reply_id,
            "type": "message",
            "role": "assistant",
            "model": self._asked,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},  # message_delta says the truth
        }
        return event_bytes({"type": "message_start", "message": message})

    def _open_as(self, kind: str, block: Bag) -> bytes:
        """The block of `kind`, opened where it is not open yet."""
        if self._kind == kind and kind != "tool_use":
            return b""
        closed = self._close()
        self._block += 1
        self._kind = kind
        return closed + event_bytes({"type": "content_block_start", "index": self._block, "content_block": block})

    def _open_text(self) -> bytes:
        return self._open_as("text", {"type": "text", "text": ""})

    def _delta(self, delta: Bag) -> bytes:
        return event_bytes({"type": "content_block_delta", "index": self._block, "delta": delta})

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        last = b""
        if self._kind == "thinking":  # foreign thinking is marked, so that it is never sent to a provider as its own
            last = self._delta({"type": "signature_delta", "signature": seal_reasoning("", None, None)})
        elif self._kind == "tool_use" and self._call is not None:
            if not self._call.fragments:
                last = self._fragment("{}")
            self._call = None
        self._kind = ""
        return last + event_bytes({"type": "content_block_stop", "index": self._block})

    def _sign(self, delta: Delta) -> bytes:
        """The thinking block with its proof, and closed: a proof is the last word of its block."""
        opened = self._open_as("thinking", {"type": "thinking", "thinking": "", "signature": ""})
        signature = seal_reasoning(delta.origin, delta.signature, delta.encrypted)
        signed = self._delta({"type": "signature_delta", "signature": signature})
        self._kind = ""
        return opened + signed + event_bytes({"type": "content_block_stop", "index": self._block})

    def _cite(self, citation: Citation) -> bytes:
        return self._open_text() + self._delta({"type": "citations_delta", "citation": write_citation(citation)})

    def _whole_part(self, part: Part) -> bytes:
        block: Any = write_answer_block(part)
        if block is None:
            return b""
        return self._open_as("whole", block) + self._close()

    # --- tool calls ---------------------------------------------------------------------------------------------------------

    def _write_call(self, call: ToolCallDelta) -> bytes:
        """A fragment of the open call goes out; one of another call waits until the open one is whole."""
        open_call = self._call
        if open_call is not None and open_call.index == call.index:
            return self._fragment(call.arguments)
        waiting = self._waiting.get(call.index)
        if waiting is not None:
            waiting.fragments.append(call.arguments)
        elif call.index not in self._called:
            self._called.add(call.index)
            waiting = _Call(call.index, call.id or "", call.name or "", [call.arguments] if call.arguments else [])
            if open_call is None or open_call.is_whole():
                return self._sign_call(call) + self._open_call(waiting, is_live=True)
            self._waiting[call.index] = waiting
        return b""

    def _sign_call(self, call: ToolCallDelta) -> bytes:
        if call.signature is None:
            return b""
        return self._open_as("whole", write_call_proof(call.origin, call.signature)) + self._close()

    def _open_call(self, call: _Call, is_live: bool = False) -> bytes:
        block = {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": {}}
        opened = self._open_as("tool_use", block)
        fragments, call.fragments = call.fragments, []
        self._call = call
        if is_live:
            return opened + b"".join(self._fragment(str(piece)) for piece in fragments)
        call.fragments = fragments
        return opened

    def _fragment(self, arguments: str) -> bytes:
        if not arguments:
            return b""
        if self._call is not None:
            self._call.fragments.append(arguments)
        return self._delta({"type": "input_json_delta", "partial_json": arguments})
