"""Streams of Gemini, from events to client bytes, as server-sent events or as one JSON array. Pure; one writer per stream.

The official SDK fails on anything but `data: {json}`: no event names, no comments, no [DONE]. A function call goes out whole, so its
fragments are gathered; finish reasons wait for the last chunk, which has the usage. A plain run of text costs one join.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from aigate.core.events import HOLE, Event
from aigate.core.neutral import Bag, Chunk, Citation, Delta, Reasoning, Text, ToolCallDelta
from aigate.dialects.dialect import Settlement
from aigate.dialects.gemini_candidate import write_citations, write_finish, write_logprobs
from aigate.dialects.gemini_errors import write_error
from aigate.dialects.gemini_parts import NAME, function_call, put_proof, write_part
from aigate.dialects.gemini_reply import blocked
from aigate.dialects.gemini_usage import write_usage
from aigate.errors import GateError

_HOLE = HOLE.encode()
_encode = msgspec.json.encode
_decode_string = msgspec.json.Decoder(str).decode


class GeminiStreamWriter:
    """`is_array`: one JSON array rather than events."""

    __slots__ = (
        "_asked", "_reply_id", "_is_array", "_has_begun", "_pending", "_arguments", "_finishes", "_citations", "_more", "_template",
        "_head", "_tail",
    )  # fmt: skip

    def __init__(self, asked: str, reply_id: str, is_array: bool = False):
        self._asked = asked
        self._reply_id = reply_id
        self._is_array = is_array
        self._has_begun = False
        self._pending: dict[int, ToolCallDelta] = {}  # choice → its call that may still grow
        self._arguments: dict[int, list[str]] = {}
        self._finishes: dict[int, tuple[str, Bag]] = {}
        self._citations: dict[int, list[Citation]] = {}
        self._more: Bag = {}  # what this format tells beside its candidates: it goes with the last chunk
        self._template: Chunk | None = None
        self._head = self._tail = b""

    def write(self, events: Sequence[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in events:
            chunk = event.chunk
            if chunk is None:
                continue
            if event.texts is None:
                pieces.append(self._write_chunk(chunk))
            elif chunk.deltas[0].tool_calls:
                self._arguments.setdefault(chunk.deltas[0].index, []).append(_insides(event.texts))
            else:
                pieces.append(self._write_run(chunk, event.texts))
        return b"".join(pieces)

    def finish(self, settlement: Settlement) -> bytes:
        out = b"".join(map(self._flush, list(self._pending)))
        fields: Bag = dict(self._more)
        if not blocked(fields) and self._finishes:
            fields["candidates"] = [self._last_candidate(index, *said) for index, said in self._finishes.items()]
        return out + self._frame(fields | {"usageMetadata": write_usage(settlement)}) + (b"]" if self._is_array else b"")

    def fail(self, error: GateError, request_id: str) -> bytes:
        return self._framed(write_error(error, request_id)) + (b"]" if self._is_array else b"")

    def keep_alive(self) -> bytes:
        return b"\n" if self._is_array else b""

    # --- frames -------------------------------------------------------------------------------------------------------------

    def _framed(self, body: bytes) -> bytes:
        if not self._is_array:
            return b"data: " + body + b"\r\n\r\n"
        lead, self._has_begun = b",\r\n" if self._has_begun else b"[", True
        return lead + body

    def _frame(self, fields: Bag) -> bytes:
        return self._framed(_encode({**fields, "modelVersion": self._asked, "responseId": self._reply_id}))

    def _part(self, index: int, part: Any, **fields: Any) -> bytes:
        return self._frame({"candidates": [{"content": {"parts": [part], "role": "model"}, "index": index, **fields}]})

    def _write_run(self, chunk: Chunk, texts: list[bytes]) -> bytes:
        out = b""
        if chunk is not self._template:
            out = b"".join(map(self._flush, list(self._pending)))
            self._template = chunk
            lead = b",\r\n" if self._has_begun else b"["
            head, _, self._tail = self._write_chunk(chunk).partition(_HOLE)
            self._head = head if not self._is_array else head.removeprefix(lead)
            if lead == b"[":
                self._has_begun = False
        if not self._is_array:
            return out + self._head + (self._tail + self._head).join(texts) + self._tail
        lead, self._has_begun = b",\r\n" if self._has_begun else b"[", True
        return out + lead + self._head + (self._tail + b",\r\n" + self._head).join(texts) + self._tail

    # --- chunks -------------------------------------------------------------------------------------------------------------

    def _write_chunk(self, chunk: Chunk) -> bytes:
        self._reply_id = chunk.id or self._reply_id
        is_own = chunk.dialect == NAME
        if is_own:
            self._more |= chunk.bag
        return b"".join(self._write_delta(delta, is_own) for delta in chunk.deltas)

    def _write_delta(self, delta: Delta, is_own: bool) -> bytes:
        index = delta.index
        bag = delta.delta_bag if is_own else {}
        pieces: list[bytes] = []
        if index in self._pending and (delta.text or delta.reasoning or delta.refusal or delta.parts):
            pieces.append(self._flush(index))
        if delta.reasoning or delta.signature or delta.encrypted:
            thought = Reasoning(delta.reasoning or "", delta.signature, delta.encrypted, bag, delta.origin)
            pieces.append(self._part(index, write_part(thought, is_for_client=True)))
        text = (delta.text or "") + (delta.refusal or "")
        if text or (bag and delta.text is not None):
            logprobs = None if delta.logprobs is None or is_own else write_logprobs(delta.logprobs)
            more = {} if logprobs is None else {"logprobsResult": logprobs}
            pieces.append(self._part(index, {"text": text, **bag}, **more))
        for call in delta.tool_calls:
            pieces.append(self._gather(index, call, is_own))
        for part in delta.parts:
            written = write_part(part, is_for_client=True)
            if written is not None:
                pieces.append(self._part(index, written))
        if delta.citations and not is_own:
            self._citations.setdefault(index, []).extend(delta.citations)
        if delta.finish_reason is not None:
            pieces.append(self._flush(index))
            self._finishes[index] = (delta.finish_reason, delta.bag if is_own else {})
        elif is_own and delta.bag:
            pieces.append(self._frame({"candidates": [{"index": index, **delta.bag}]}))
        return b"".join(pieces)

    def _last_candidate(self, index: int, finish: str, bag: Bag) -> Bag:
        fields: Bag = {"content": {"parts": [{"text": ""}], "role": "model"}, "finishReason": write_finish(finish, bag), "index": index}
        citations = self._citations.get(index)
        if citations:  # what they quote says where: the text itself was not kept
            unplaced = [msgspec.structs.replace(citation, start=None, end=None) for citation in citations]
            grounding = write_citations([Text(citation.cited_text or "", citations=[citation]) for citation in unplaced])
            assert grounding is not None
            for support in grounding["groundingSupports"]:
                support["segment"] = {"text": support["segment"]["text"]}
            fields["groundingMetadata"] = grounding
        return fields | bag

    # --- calls --------------------------------------------------------------------------------------------------------------

    def _gather(self, index: int, fragment: ToolCallDelta, is_own: bool) -> bytes:
        """A fragment of a call; the bytes of the call before it, once another one begins."""
        known = self._pending.get(index)
        out = b""
        if known is None or known.index != fragment.index:
            out = self._flush(index)
            known = self._pending[index] = msgspec.structs.replace(fragment, arguments="", bag=fragment.bag if is_own else {})
        known.id = known.id or fragment.id
        known.name = known.name or fragment.name
        if fragment.signature:
            known.signature, known.origin = fragment.signature, fragment.origin
        self._arguments.setdefault(index, []).append(fragment.arguments)
        return out

    def _flush(self, index: int) -> bytes:
        call = self._pending.pop(index, None)
        if call is None:
            return b""
        arguments = "".join(self._arguments.pop(index, ()))
        inside = function_call(call.id or "", call.name or "", arguments, call.kind) | call.bag.get("functionCall", {})
        part: Bag = {**call.bag, "functionCall": inside}
        put_proof(part, call.origin, call.signature, None)
        return self._part(index, part)


def _insides(texts: list[bytes]) -> str:
    """Insides of JSON strings as one text."""
    joined = b"".join(texts)
    try:
        return _decode_string(b'"' + joined + b'"')
    except (msgspec.DecodeError, UnicodeDecodeError):
        return joined.decode("utf-8", "replace")
