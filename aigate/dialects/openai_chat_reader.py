"""Streams of OpenAI chat and its neighbours, from provider bytes to events. Pure; one reader per attempt.

Every neighbour's spelling (where reasoning, usage and ids sit) becomes the neutral one here. `is_spliced` only decides whether chunks
that match a template (template.py) are passed on undecoded: what they mean is the same.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import msgspec

from aigate.core.events import Event
from aigate.core.neutral import Bag, Chunk, Delta, ToolCallDelta
from aigate.core.sse import read_block
from aigate.core.target import Target
from aigate.dialects.block_reader import BlockReader
from aigate.dialects.body import read_time
from aigate.dialects.openai_chat_message import NAME, as_text, mint_call_id, read_citations, split_content
from aigate.dialects.openai_errors import error_in, read_error_event, read_error_object
from aigate.dialects.openai_usage import read_usage_object
from aigate.dialects.template import padding
from aigate.dialects.think import ThinkSplitter

_ERROR_EVENT = re.compile(rb"^event: ?error$", re.MULTILINE)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class _Call(msgspec.Struct, frozen=True):
    index: int  # ours: dense from 0 within its choice
    given_id: str
    has_name: bool


class ChatStreamReader(BlockReader):
    __slots__ = ("_quirks", "_padding", "_calls", "_call_counts", "_thinking")

    def __init__(self, target: Target, is_spliced: bool):
        super().__init__(is_spliced)
        self._quirks = target.quirks
        self._padding = padding(target.quirks.drops) if is_spliced and target.quirks.drops else None
        self._calls: dict[tuple[int, object], _Call] = {}  # (choice, index on the wire) → the call it now stands for
        self._call_counts: dict[int, int] = {}
        self._thinking: dict[int, ThinkSplitter] = {}

    def _read_run(self, run: bytes) -> list[Event]:
        if self._padding is not None:
            run = self._padding.sub(b"}\n\n", run)
        template = self._template
        matched = None if template is None else template.match_run(run, 0)
        if matched is None:
            return self._read_blocks(run)
        texts, joined, end = matched
        self._lessons = 0
        self._kept.add(joined, len(joined))
        events = [Event(b"", len(texts), template.chunk, texts)]
        return events if end == len(run) else events + self._read_blocks(run, end)

    # --- blocks -------------------------------------------------------------------------------------------------------------

    def _is_told(self, event: Event) -> bool:
        return not event.raw

    def _read_block(self, block: bytes) -> Event | None:
        payload = read_block(block)
        if not payload:
            return None
        if payload.strip() == b"[DONE]":
            self._is_done = True
            return Event(is_done=True)
        event = self._read_payload(payload)
        if (event is None or (event.chunk is None and event.error is None)) and _ERROR_EVENT.search(block):
            self._has_failed = True
            return Event(error=read_error_event(payload))
        if event is None:
            return self._read_odd(block, payload)
        chunk = event.chunk
        if chunk is None:
            return event
        for delta in chunk.deltas:
            self._keep(delta.reasoning, delta.text, delta.refusal, *((call.name or "") + call.arguments for call in delta.tool_calls))
        if event.is_final:
            self._is_final = True
            self._template = None
        elif event.usage is None and self._is_settled(chunk):
            self._learn(block, chunk)
        return event

    def _is_settled(self, chunk: Chunk) -> bool:
        """Whether the next chunk like this one would be read like it, whatever its text."""
        if self._is_final or self._has_failed or len(chunk.deltas) != 1:
            return False
        if self._quirks.reasoning_field != "think_tags":
            return True
        splitter = self._thinking.get(chunk.deltas[0].index)
        return splitter is not None and splitter.is_settled

    def _read_again(self, block: bytes) -> Chunk | None:
        calls, counts = dict(self._calls), dict(self._call_counts)
        payload = read_block(block)
        event = None if payload is None else self._read_payload(payload)
        self._calls, self._call_counts = calls, counts
        return None if event is None or event.usage is not None or event.error is not None or event.is_final else event.chunk

    def _read_odd(self, block: bytes, payload: bytes) -> Event:
        """What is no JSON to us goes on as it came. Where other readers make sense of it (NaN, half a surrogate pair), its usage and its
        end count."""
        event = Event(raw=block, count=1)
        with suppress(ValueError, RecursionError):
            pairs = json.loads(payload)
            if type(pairs) is dict and type(pairs.get("choices")) is list:
                choices = [choice for choice in pairs["choices"] if type(choice) is dict]
                event.is_final = any(choice.get("finish_reason") for choice in choices)
                self._is_final = self._is_final or event.is_final
                self._read_usage(pairs, choices, event)
        return event

    # --- chunks -------------------------------------------------------------------------------------------------------------

    def _read_payload(self, payload: bytes) -> Event | None:
        """A chunk's event; None for what is no JSON object."""
        try:
            pairs = _decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if type(pairs) is not dict:
            return None
        event = Event(count=1)
        choices = pairs.pop("choices", None)
        choices = [choice for choice in choices if type(choice) is dict] if type(choices) is list else None
        self._read_usage(pairs, choices or (), event)
        error = error_in(pairs)
        pairs.pop("error", None)
        if error:
            event.error = read_error_object(error)
            self._has_failed = True
        if choices is None and event.usage is None:
            return event  # a ping, or whatever else is no chunk
        reply_id, created, model = pairs.pop("id", None), pairs.pop("created", None), pairs.pop("model", None)
        pairs.pop("object", None)
        for key in self._quirks.drops:
            pairs.pop(key, None)
        reply_id = reply_id if isinstance(reply_id, str) else ""
        event.chunk = Chunk(
            reply_id,
            read_time(created),
            model if isinstance(model, str) else "",
            [self._read_choice(choice, reply_id) for choice in choices or ()],
            pairs,
            NAME,
        )
        event.is_final = any(delta.finish_reason is not None for delta in event.chunk.deltas)
        return event

    def _read_usage(self, pairs: Bag, choices: Any, event: Event) -> None:
        """Takes the usage object out of wherever it sits. The chunk's own wins over those further in."""
        usage = pairs.pop("usage", None)
        inner = [choice.pop("usage") for choice in choices if "usage" in choice]
        groq = pairs.get("x_groq")
        if type(groq) is dict and "usage" in groq:
            inner.append(groq.pop("usage"))
        for fields in (usage, *inner):
            if type(fields) is dict and fields:
                event.usage = read_usage_object(fields, self._quirks)
                if event.usage is not None:
                    event.raw_usage = _encode(fields)
                    tier = pairs.get("service_tier")
                    event.service_tier = tier if type(tier) is str else ""
                    return

    def _read_choice(self, choice: Bag, reply_id: str) -> Delta:
        index = choice.pop("index", 0)
        index = index if type(index) is int else 0
        fields = choice.pop("delta", None)
        if type(fields) is not dict:
            fields = choice.pop("message", None)  # a whole reply where a stream was due
            fields = fields if type(fields) is dict else {}
        finish_reason = choice.pop("finish_reason", None)
        finish_reason = finish_reason if isinstance(finish_reason, str) and finish_reason else None  # "" on every chunk ends nothing
        logprobs = choice.pop("logprobs") if choice.get("logprobs") is not None else None
        role = fields.pop("role", None)
        role = role if isinstance(role, str) else None
        text, reasoning = self._read_text(fields, index, finish_reason is not None)
        calls = fields.pop("tool_calls") if type(fields.get("tool_calls")) is list else ()
        return Delta(
            index,
            role,
            text,
            reasoning,
            fields.pop("refusal") if isinstance(fields.get("refusal"), str) else None,
            [self._read_call(call, index, reply_id) for call in calls if type(call) is dict],
            finish_reason,
            logprobs,
            fields,
            choice,
            citations=read_citations(fields["annotations"]) if "annotations" in fields else [],
        )

    def _read_text(self, fields: Bag, index: int, is_last: bool) -> tuple[str | None, str | None]:
        """(text, reasoning) of a delta, taken out of `fields` wherever this provider puts them."""
        text = reasoning = None
        if isinstance(fields.get("reasoning_content"), str):
            reasoning = fields.pop("reasoning_content")
        if isinstance(fields.get("reasoning"), str):
            value = fields.pop("reasoning")
            reasoning = value if reasoning is None else reasoning
        content = fields.get("content")
        if isinstance(content, str):
            text = fields.pop("content")
        elif type(content) is list:
            text, thought, others = split_content(fields.pop("content"))
            reasoning = thought if reasoning is None else reasoning
            if others:
                fields["content_parts"] = others
        if self._quirks.reasoning_field == "think_tags" and (text or is_last):
            splitter = self._thinking.setdefault(index, ThinkSplitter())
            thought, rest = splitter.feed(text or "", is_last)
            reasoning = (reasoning or "") + thought if thought else reasoning
            text = rest if rest or text is not None else None
        return text, reasoning

    def _read_call(self, entry: Bag, choice: int, reply_id: str) -> ToolCallDelta:
        kind = "custom" if entry.get("type") == "custom" or "custom" in entry else "function"
        entry.pop("type", None)
        inside = entry.pop(kind, None)
        if type(inside) is not dict:
            inside = {}
        given_id, name = entry.pop("id", None), inside.pop("name", None)
        given_id = given_id if isinstance(given_id, str) else ""
        name = name if isinstance(name, str) and name else None
        arguments = as_text(inside.pop("input" if kind == "custom" else "arguments", None))
        given_place = entry.pop("index", None)
        place = (choice, given_place if type(given_place) is int else None)
        known = self._calls.get(place)
        if known is None or self._is_next_call(known, given_id, name):
            index = self._call_counts.get(choice, 0)
            self._call_counts[choice] = index + 1
            known = _Call(index, given_id, False)
            call_id = given_id or mint_call_id(reply_id, choice, index)
            self._template = None  # what was learnt may have spoken of the call before
        else:
            call_id = None
        if known.has_name:
            name = None  # clients append what is repeated
        self._calls[place] = _Call(known.index, known.given_id, known.has_name or name is not None)
        return ToolCallDelta(known.index, call_id, name, arguments, kind, {**entry, **({kind: inside} if inside else {})})

    def _is_next_call(self, known: _Call, given_id: str, name: str | None) -> bool:
        """Whether a fragment at a known place begins another call (some number every call 0)."""
        if given_id:
            return given_id != known.given_id
        return name is not None and known.has_name and self._quirks.mints_tool_ids
