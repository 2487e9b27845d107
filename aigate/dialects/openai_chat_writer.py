"""Streams of OpenAI chat, from events to client bytes. Pure; one writer per stream.

Keeps what the official SDKs insist on: `object` on each chunk, a role once, an index on every list entry, usage in exactly one chunk,
the last one, and `[DONE]` always. A plain run costs one join: its template is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aigate.core.events import HOLE, Event
from aigate.core.neutral import Bag, Chunk, Delta, Reasoning, ToolCallDelta
from aigate.dialects.dialect import Settlement
from aigate.dialects.openai_chat_details import DETAILS, write_detail
from aigate.dialects.openai_chat_message import NAME, put_signature, write_annotation
from aigate.dialects.openai_errors import write_error
from aigate.dialects.openai_usage import write_usage_object
from aigate.errors import GateError

DONE = b"data: [DONE]\n\n"
_KEPT_FIELDS = ("system_fingerprint", "service_tier")  # of the last chunk, repeated on the usage chunk
_HOLE = HOLE.encode()
_encode = msgspec.json.encode
_decode_string = msgspec.json.Decoder(str).decode


class ChatStreamWriter:
    """`asked` is the model name every chunk carries; `include_usage` as the caller said (None: it did not)."""

    __slots__ = (
        "_asked", "_include_usage", "_no_choices", "_reply_id", "_created", "_received_at", "_kept", "_template", "_head", "_tail", "_joint", "_begun",
        "_finished", "_thoughts", "_details", "_begun_to_say",
    )  # fmt: skip

    def __init__(self, asked: str, reply_id: str, include_usage: bool | None, received_at: int = 0):
        self._asked = asked
        self._include_usage = include_usage
        # Loops that read choices[0] of every chunk must not fail; who asked for usage knows chunks without choices.
        self._no_choices: list[Bag] = [] if include_usage else [{"index": 0, "delta": {}, "finish_reason": None}]
        self._reply_id = reply_id
        self._created = 0
        self._received_at = received_at
        self._kept: Bag = {}
        self._template: Chunk | None = None
        self._head = self._tail = self._joint = b""
        self._begun: set[int] = set()  # choices whose role was sent
        self._finished: set[int] = set()
        # Of providers of other formats, by choice: the thought under way, how many have been proved, who has said something else.
        self._thoughts: dict[int, list[bytes]] = {}
        self._details: dict[int, int] = {}
        self._begun_to_say: set[int] = set()

    def write(self, events: Sequence[Event]) -> bytes:
        if len(events) != 1:
            return b"".join([self._write_event(event) for event in events])
        event = events[0]
        if event.texts is not None and event.chunk is self._template and self._template.dialect == NAME:  # as nearly all come
            return self._head + self._joint.join(event.texts) + self._tail
        return self._write_event(event)

    def _write_event(self, event: Event) -> bytes:
        chunk, texts = event.chunk, event.texts
        if chunk is None:
            return event.raw
        if texts is None:
            return self._write_chunk(chunk, event.usage is not None)
        if chunk is not self._template:
            self._learn(chunk)
        if chunk.dialect != NAME:
            self._note(chunk.deltas[0], texts)
        return self._head + self._joint.join(texts) + self._tail

    def finish(self, settlement: Settlement) -> bytes:
        if self._include_usage is False:
            return DONE
        chunk = self._frame(self._reply_id, self._created, self._kept)
        return b"data: " + _encode({**chunk, "choices": self._no_choices, "usage": write_usage_object(settlement)}) + b"\n\n" + DONE

    def fail(self, error: GateError, request_id: str) -> bytes:
        return b"data: " + write_error(error, request_id) + b"\n\n" + DONE

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    # --- chunks -------------------------------------------------------------------------------------------------------------

    def _frame(self, reply_id: str, created: int, bag: Bag) -> Bag:
        return {"id": reply_id, "object": "chat.completion.chunk", "created": created, "model": self._asked, **bag}

    def _write_chunk(self, chunk: Chunk, has_usage: bool) -> bytes:
        """One chunk; b"" for what nothing is left of once its usage is taken out."""
        if chunk.id:
            self._reply_id = chunk.id
        self._created = chunk.created or self._created
        is_own = chunk.dialect == NAME
        if not is_own:
            self._created = self._created or self._received_at  # most others say no time
        bag = chunk.bag if is_own else {}
        for key in _KEPT_FIELDS:
            if key in bag:
                self._kept[key] = bag[key]
        choices = [written for delta in chunk.deltas if (written := self._write_delta(delta, is_own)) is not None]
        if not choices and (has_usage or chunk.deltas or not is_own):
            return b""
        fields = self._frame(chunk.id or self._reply_id, chunk.created or self._created, bag)
        return b"data: " + _encode({**fields, "choices": choices or self._no_choices}) + b"\n\n"

    def _write_delta(self, delta: Delta, is_own: bool) -> Bag | None:
        """One choice of a chunk; None for an empty one after its finish (some say it again beside their usage)."""
        index = delta.index
        if index in self._finished and not _says_something(delta):
            return None
        if delta.finish_reason is not None:
            self._finished.add(index)
        fields: Bag = {}
        if delta.role is not None and index not in self._begun:
            self._begun.add(index)
            fields["role"] = delta.role
        if delta.reasoning is not None:
            fields["reasoning_content"] = delta.reasoning
        if delta.text is not None:
            fields["content"] = delta.text
        if delta.refusal is not None:
            fields["refusal"] = delta.refusal
        if delta.tool_calls:
            fields["tool_calls"] = [_write_call(call, is_own) for call in delta.tool_calls]
        if not is_own:
            detail = self._detail(delta)
            if detail is not None:
                fields[DETAILS] = [detail]
        if not is_own and delta.citations:
            cited = [write_annotation(citation, citation.start, citation.end) for citation in delta.citations if citation.url is not None]
            if cited:
                fields["annotations"] = _with_indexes(cited)
        if is_own:
            for key, value in delta.delta_bag.items():
                fields.setdefault(key, _with_indexes(value) if type(value) is list else value)
        choice: Bag = {"index": index, "delta": fields, **(delta.bag if is_own else {}), "finish_reason": delta.finish_reason}
        if delta.logprobs is not None:
            choice["logprobs"] = delta.logprobs
        return choice

    def _note(self, delta: Delta, texts: Sequence[bytes]) -> None:
        """A run of a thought belongs to the proof that may end it; of anything else, that something was said."""
        if delta.reasoning is not None:
            self._thoughts.setdefault(delta.index, []).extend(texts)
        else:
            self._begun_to_say.add(delta.index)

    def _detail(self, delta: Delta) -> Bag | None:
        index = delta.index
        if delta.reasoning and delta.reasoning != HOLE:
            self._thoughts.setdefault(index, []).append(_encode(delta.reasoning)[1:-1])
        if delta.text or delta.refusal or delta.tool_calls:
            self._begun_to_say.add(index)
        if delta.signature is None and delta.encrypted is None:
            return None
        text: str | None = ""
        if delta.signature is not None:
            text = _whole(self._thoughts.pop(index, ()))
        thought = Reasoning(text or "", delta.signature, delta.encrypted, origin=delta.origin)
        place = self._details.get(index, 0)
        detail = write_detail(thought, place, is_first=text is not None and index not in self._begun_to_say)
        self._details[index] = place + (detail is not None)
        return detail

    def _learn(self, template: Chunk) -> None:
        self._template = template
        self._head, _, self._tail = self._write_chunk(template, False).partition(_HOLE)
        self._joint = self._tail + self._head


def _whole(insides: Sequence[bytes]) -> str | None:
    """Insides of JSON strings as one text; None where they are none: a proof of another text would be none."""
    try:
        return _decode_string(b'"' + b"".join(insides) + b'"')
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _says_something(delta: Delta) -> bool:
    return bool(delta.text or delta.reasoning or delta.refusal or delta.tool_calls or any(delta.delta_bag.values()))


def _write_call(call: ToolCallDelta, is_own: bool) -> Bag:
    inside: Bag = {} if call.name is None else {"name": call.name}
    inside["input" if call.kind == "custom" else "arguments"] = call.arguments
    bag = call.bag if is_own else {}
    inside |= bag.get(call.kind, {})
    fields: Bag = {"index": call.index, **bag, call.kind: inside}
    if call.id is not None:
        fields["id"] = call.id
        fields["type"] = call.kind
    put_signature(fields, call)
    return fields


def _with_indexes(entries: list[object]) -> list[object]:
    """Each object with an index: a reader that folds deltas cannot do without."""
    return [{"index": place, **entry} if type(entry) is dict and "index" not in entry else entry for place, entry in enumerate(entries)]
