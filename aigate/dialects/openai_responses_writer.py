"""Streams of OpenAI Responses, from events to client bytes. Pure; one writer per stream.

Events of this same format go out as they came, numbered anew; the terminal one waits for the settlement. Of any other format the
writer makes items: opened, filled and closed one after the other, their ids fixed when they open, as the official SDKs insist.
Nothing goes out before something was said, so that an early failure can still go elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.call import Call
from aigate.core.events import HOLE, Event
from aigate.core.neutral import Bag, Chunk, Citation, Delta, Media, Reasoning, ToolCallDelta
from aigate.dialects.dialect import Settlement
from aigate.dialects.openai_errors import error_object
from aigate.dialects.openai_responses_items import NAME, call_proof_item, reasoning_item, write_annotation
from aigate.dialects.openai_responses_reply import echo, ending, kept_state, response_id, write_usage
from aigate.errors import GateError

_HOLE = HOLE.encode()
_STARTS = ("response.created", "response.queued", "response.in_progress")
_DELTAS = {
    "message": "response.output_text.delta",
    "refusal": "response.refusal.delta",
    "reasoning": "response.reasoning_summary_text.delta",
    "function_call": "response.function_call_arguments.delta",
    "custom_tool_call": "response.custom_tool_call_input.delta",
}
_PREFIXES = {"message": "msg", "refusal": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}

_encode = msgspec.json.encode


class _Item:
    """An output item under way. `texts` are insides of JSON strings."""

    __slots__ = ("kind", "id", "index", "texts", "frame", "citations", "logprobs", "call_id", "name", "proof")

    def __init__(self, kind: str, item_id: str, index: int):
        self.kind = kind  # message | refusal | reasoning | function_call | custom_tool_call
        self.id = item_id
        self.index = index
        self.texts: list[bytes] = []
        self.frame: tuple[bytes, bytes, bytes] | None = None  # what stands around number and text of its deltas
        self.citations: list[Bag] = []
        self.logprobs: list[Any] = []
        self.call_id = self.name = ""
        self.proof = Reasoning("")

    @property
    def text(self) -> Raw:
        return Raw(b'"' + b"".join(self.texts) + b'"')

    @property
    def place(self) -> Bag:
        inner = {"reasoning": "summary_index", "message": "content_index", "refusal": "content_index"}.get(self.kind)
        return {"item_id": self.id, "output_index": self.index, **({} if inner is None else {inner: 0})}


class ResponsesStreamWriter:
    __slots__ = (
        "_call", "_asked", "_id", "_created", "_number", "_held", "_terminal", "_own_chunk", "_own_frame", "_has_begun", "_open", "_calls",
        "_output", "_finish_reason",
    )  # fmt: skip

    def __init__(self, call: Call, asked: str, reply_id: str):
        self._call = call
        self._asked = asked
        self._id = response_id(reply_id)
        self._created = call.received_at
        self._number = 0
        self._held = b""  # lifecycle events before anything was said
        self._terminal: Bag | None = None
        self._own_chunk: Chunk | None = None
        self._own_frame = (b"", b"", b"")
        self._has_begun = False
        self._open: _Item | None = None  # message, refusal or reasoning
        self._calls: dict[int, _Item] = {}  # tool calls that are not closed
        self._output: dict[int, Any] = {}  # items that are closed, by their index
        self._finish_reason: str | None = None

    def write(self, events: Sequence[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in events:
            chunk = event.chunk
            if chunk is None:
                continue
            if chunk.dialect == NAME:
                pieces.append(self._write_own(chunk) if event.texts is None else self._write_own_run(chunk, event.texts))
            elif event.texts is None:
                self._write_chunk(chunk, pieces)
            else:
                self._write_run(chunk, event.texts, pieces)
        return b"".join(pieces)

    def finish(self, settlement: Settlement) -> bytes:
        pieces: list[bytes] = []
        terminal = self._terminal
        if terminal is not None:
            terminal["response"]["usage"] = write_usage(settlement)
            if not terminal["response"].get("output"):  # some providers leave it to the events before
                terminal["response"]["output"] = [self._output[index] for index in sorted(self._output)]
            return self._release() + self._event(terminal)
        self._begin(pieces)
        self._close_all(pieces)
        status, details = ending(self._finish_reason)
        response = self._response(status, [self._output[index] for index in sorted(self._output)])
        response |= {"incomplete_details": details, "usage": write_usage(settlement)}
        pieces.append(self._event({"type": f"response.{status}", "response": response}))
        return b"".join(pieces)

    def fail(self, error: GateError, request_id: str) -> bytes:
        """`response.failed` ends a stream that broke, with what was said whole before; nothing follows it."""
        pieces: list[bytes] = [self._release()]
        if not self._number:
            self._begin(pieces)
        fields = error_object(error, request_id)
        response = self._response("failed", [self._output[index] for index in sorted(self._output)])
        pieces.append(self._event({"type": "response.failed", "response": response | {"error": fields}}))
        return b"".join(pieces)

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    def _event(self, fields: Bag) -> bytes:
        """One event, numbered."""
        kind, number = fields["type"], self._number
        self._number += 1
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), _encode({"type": kind, "sequence_number": number, **_unnumbered(fields)}))

    def _release(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _deltas(self, frame: tuple[bytes, bytes, bytes], texts: Sequence[bytes]) -> bytes:
        head, middle, tail = frame
        number = self._number
        self._number = number + len(texts)
        return b"".join([b"%b%d%b%b%b" % (head, number + place, middle, text, tail) for place, text in enumerate(texts)])

    # --- events of this format ----------------------------------------------------------------------------------------------

    def _write_own(self, chunk: Chunk) -> bytes:
        fields = chunk.bag
        response = fields.get("response")
        if type(response) is dict:
            fields = {**fields, "response": {**response, "model": self._asked, **kept_state(self._call.pairs)}}
            if chunk.deltas and chunk.deltas[0].finish_reason is not None:
                self._terminal = fields
                return b""
            if fields["type"] in _STARTS:
                self._id = response.get("id") or self._id
                self._held += self._event(fields)
                return b""
        elif fields["type"] == "response.output_item.done" and type(fields.get("output_index")) is int:
            self._output[fields["output_index"]] = fields.get("item")
        return self._release() + self._event(fields)

    def _write_own_run(self, chunk: Chunk, texts: Sequence[bytes]) -> bytes:
        if chunk is not self._own_chunk:
            self._own_chunk = chunk
            self._own_frame = _frame(chunk.bag)
        return self._release() + self._deltas(self._own_frame, texts)

    # --- events of others ---------------------------------------------------------------------------------------------------

    def _response(self, status: str, output: list[Any]) -> Bag:
        return {
            "id": self._id, "object": "response", "created_at": self._created, "status": status, "background": False, "error": None,
            "incomplete_details": None, **echo(self._call.pairs), "model": self._asked, "output": output, "usage": None,
        }  # fmt: skip

    def _begin(self, pieces: list[bytes]) -> None:
        if not self._has_begun:
            self._has_begun = True
            for kind in ("response.created", "response.in_progress"):
                pieces.append(self._event({"type": kind, "response": self._response("in_progress", [])}))

    def _write_run(self, chunk: Chunk, texts: Sequence[bytes], pieces: list[bytes]) -> None:
        delta = chunk.deltas[0]
        if delta.index:
            return
        item = self._calls.get(delta.tool_calls[0].index) if delta.tool_calls else self._content(_kind_of(delta), pieces)
        if item is not None:
            self._add(item, texts, pieces)

    def _write_chunk(self, chunk: Chunk, pieces: list[bytes]) -> None:
        if not self._has_begun:
            if chunk.id:
                self._id = response_id(chunk.id)
            self._created = chunk.created or self._created
        for delta in chunk.deltas:
            if not delta.index:  # this format has one choice
                self._write_delta(delta, pieces)

    def _write_delta(self, delta: Delta, pieces: list[bytes]) -> None:
        if delta.reasoning:
            self._add(self._content("reasoning", pieces), [_inside(delta.reasoning)], pieces)
        if delta.signature or delta.encrypted:
            self._write_proof(delta, pieces)
        if delta.text:
            item = self._content("message", pieces)
            self._add(item, [_inside(delta.text)], pieces)
            if type(delta.logprobs) is dict:
                item.logprobs += delta.logprobs.get("content") or ()
        for citation in delta.citations:
            self._write_citation(citation, pieces)
        if delta.refusal:
            self._add(self._content("refusal", pieces), [_inside(delta.refusal)], pieces)
        for call in delta.tool_calls:
            self._write_call(call, pieces)
        for part in delta.parts:
            if type(part) is Media and part.kind == "image" and part.data is not None:
                self._write_image(part, pieces)
        if delta.finish_reason is not None:
            self._finish_reason = delta.finish_reason

    def _new_item(self, kind: str, pieces: list[bytes]) -> _Item:
        self._begin(pieces)
        index = len(self._output) + len(self._calls)
        return _Item(kind, f"{_PREFIXES[kind]}_{self._id.removeprefix('resp_')}_{index}", index)

    def _content(self, kind: str, pieces: list[bytes]) -> _Item:
        """The open item of this kind, opened if need be; whatever else is open is closed first."""
        item = self._open
        if item is not None and item.kind == kind:
            return item
        self._close_all(pieces)
        item = self._open = self._new_item(kind, pieces)
        pieces.append(self._event({"type": "response.output_item.added", "output_index": item.index, "item": _opened(item)}))
        if kind == "reasoning":
            part: Bag = {"type": "summary_text", "text": ""}
            pieces.append(self._event({"type": "response.reasoning_summary_part.added", **item.place, "part": part}))
        else:
            part = {"type": "refusal", "refusal": ""} if kind == "refusal" else {"type": "output_text", "text": "", "annotations": []}
            pieces.append(self._event({"type": "response.content_part.added", **item.place, "part": part}))
        return item

    def _add(self, item: _Item, texts: Sequence[bytes], pieces: list[bytes]) -> None:
        if item.frame is None:
            extra: Bag = {"logprobs": []} if item.kind == "message" else {}
            item.frame = _frame({"type": _DELTAS[item.kind], **item.place, "delta": HOLE, **extra})
        item.texts += texts
        pieces.append(self._deltas(item.frame, texts))

    def _write_proof(self, delta: Delta, pieces: list[bytes]) -> None:
        item = self._open
        if delta.encrypted or item is None or item.kind != "reasoning":  # a whole item, which has no text
            self._close_all(pieces)
            item = self._new_item("reasoning", pieces)
            whole = reasoning_item(Reasoning("", delta.signature, delta.encrypted, origin=delta.origin), item.id)
            self._write_whole(item, whole | {"id": item.id}, pieces)
        else:
            item.proof = Reasoning("", delta.signature, origin=delta.origin)

    def _write_whole(self, item: _Item, whole: Bag, pieces: list[bytes]) -> None:
        """A reasoning item without a text: there is nothing to stream of it."""
        pieces.append(self._event({"type": "response.output_item.added", "output_index": item.index, "item": _opened(item)}))
        self._done(item, whole, pieces)

    def _write_citation(self, citation: Citation, pieces: list[bytes]) -> None:
        item = self._content("message", pieces)
        text = b"".join(item.texts).decode("utf-8", "replace")
        annotation = write_annotation(msgspec.structs.replace(citation, bag={}), text)  # its bag speaks another format
        if annotation is not None:
            place = {**item.place, "annotation_index": len(item.citations), "annotation": annotation}
            item.citations.append(annotation)
            pieces.append(self._event({"type": "response.output_text.annotation.added", **place}))

    def _write_call(self, call: ToolCallDelta, pieces: list[bytes]) -> None:
        item = self._calls.get(call.index)
        if item is None:
            self._close_content(pieces)
            if call.signature is not None:
                proof = self._new_item("reasoning", pieces)
                self._write_whole(proof, call_proof_item(call.origin, call.signature, proof.id), pieces)
            item = self._new_item("custom_tool_call" if call.kind == "custom" else "function_call", pieces)
            item.call_id, item.name = call.id or item.id, call.name or ""
            self._calls[call.index] = item
            pieces.append(self._event({"type": "response.output_item.added", "output_index": item.index, "item": _opened(item)}))
        if call.arguments:
            self._add(item, [_inside(call.arguments)], pieces)

    def _write_image(self, image: Media, pieces: list[bytes]) -> None:
        self._close_all(pieces)
        self._begin(pieces)
        index = len(self._output)
        item = {"id": f"ig_{self._id.removeprefix('resp_')}_{index}", "type": "image_generation_call", "status": "in_progress", "result": None}
        pieces.append(self._event({"type": "response.output_item.added", "output_index": index, "item": item}))
        self._output[index] = item | {"status": "completed", "result": image.data}
        pieces.append(self._event({"type": "response.output_item.done", "output_index": index, "item": self._output[index]}))

    # --- the ends of items --------------------------------------------------------------------------------------------------

    def _close_all(self, pieces: list[bytes]) -> None:
        self._close_content(pieces)
        for item in self._calls.values():
            key, kind = ("input", "custom_tool_call_input") if item.kind == "custom_tool_call" else ("arguments", "function_call_arguments")
            pieces.append(self._event({"type": f"response.{kind}.done", **item.place, key: item.text}))
            self._output[item.index] = _opened(item) | {"status": "completed", key: item.text}
            pieces.append(self._event({"type": "response.output_item.done", "output_index": item.index, "item": self._output[item.index]}))
        self._calls = {}

    def _close_content(self, pieces: list[bytes]) -> None:
        item, self._open = self._open, None
        if item is None:
            return
        if item.kind == "reasoning":
            part: Bag = {"type": "summary_text", "text": item.text}
            pieces.append(self._event({"type": "response.reasoning_summary_text.done", **item.place, "text": item.text}))
            pieces.append(self._event({"type": "response.reasoning_summary_part.done", **item.place, "part": part}))
            self._done(item, {**reasoning_item(item.proof, item.id), "id": item.id, "summary": [part]}, pieces)
            return
        if item.kind == "refusal":
            part = {"type": "refusal", "refusal": item.text}
            pieces.append(self._event({"type": "response.refusal.done", **item.place, "refusal": item.text}))
        else:
            part = {"type": "output_text", "text": item.text, "annotations": item.citations, "logprobs": item.logprobs}
            pieces.append(self._event({"type": "response.output_text.done", **item.place, "text": item.text, "logprobs": item.logprobs}))
        pieces.append(self._event({"type": "response.content_part.done", **item.place, "part": part}))
        self._done(item, _opened(item) | {"status": "completed", "content": [part]}, pieces)

    def _done(self, item: _Item, whole: Bag, pieces: list[bytes]) -> None:
        self._output[item.index] = whole
        pieces.append(self._event({"type": "response.output_item.done", "output_index": item.index, "item": whole}))


def _unnumbered(fields: Bag) -> Bag:
    return {key: value for key, value in fields.items() if key != "sequence_number"} if "sequence_number" in fields else fields


def _frame(fields: Bag) -> tuple[bytes, bytes, bytes]:
    """What stands before the number, between number and text, and after the text of a delta whose text is HOLE."""
    kind = fields["type"]
    head = b'event: %b\ndata: {"type":%b,"sequence_number":' % (kind.encode(), _encode(kind))
    rest = _encode({key: value for key, value in fields.items() if key not in ("type", "sequence_number")})
    middle, _, tail = rest.partition(_HOLE)
    return head, b"," + middle[1:], tail + b"\n\n"


def _inside(text: str) -> bytes:
    return _encode(text)[1:-1]


def _kind_of(delta: Delta) -> str:
    return "message" if delta.text else "reasoning" if delta.reasoning else "refusal"


def _opened(item: _Item) -> Bag:
    """The item as it is when it opens."""
    fields: Bag = {"id": item.id, "type": item.kind, "status": "in_progress"}
    if item.kind in ("message", "refusal"):
        return fields | {"type": "message", "role": "assistant", "content": []}
    if item.kind == "reasoning":
        return {"id": item.id, "type": "reasoning", "summary": []}
    return fields | {"call_id": item.call_id, "name": item.name, "input" if item.kind == "custom_tool_call" else "arguments": ""}
