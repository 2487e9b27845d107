"""Streams of Gemini (alt=sse), from provider bytes to events. Pure; one reader per attempt.

Each part of a chunk becomes an event of its own, so that their order is kept. Usage comes with every chunk and grows, so chunks are never
equal but for one string: there are no plain runs to pass on. The format has no terminal event: the end of the body is the end.
"""

from __future__ import annotations

import msgspec

from aigate.core.events import Event
from aigate.core.neutral import Bag, Chunk, Delta, Part, Reasoning, Text, ToolCall, ToolCallDelta
from aigate.core.sse import BlockSplitter, read_block
from aigate.core.target import Target
from aigate.dialects.gemini_candidate import read_citations, read_finish, read_logprobs
from aigate.dialects.gemini_errors import read_error_object
from aigate.dialects.gemini_parts import NAME, made_up_id, read_part
from aigate.dialects.gemini_reply import blocked, created_at
from aigate.dialects.gemini_usage import read_usage, service_tier
from aigate.dialects.texts import KeptText
from aigate.errors import ProviderError

MAX_EVENT_BYTES = 64 << 20  # an image comes whole

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class GeminiStreamReader:
    __slots__ = ("_blocks", "_kept", "_texts", "_call_counts", "_begun", "_finished", "_has_failed", "_reply_id", "_usage")

    def __init__(self, target: Target, is_spliced: bool):
        self._blocks = BlockSplitter()
        self._kept = KeptText()
        self._texts: dict[int, list[str]] = {}  # choice → its text so far, which its citations point into
        self._call_counts: dict[int, int] = {}
        self._begun: set[int] = set()
        self._finished: set[int] = set()
        self._has_failed = False
        self._reply_id = ""
        self._usage: Bag | None = None  # not told yet

    def feed(self, data: bytes) -> list[Event]:
        run = self._blocks.feed(data)
        if run:
            return self._read_blocks(run)
        if self._blocks.held_bytes > MAX_EVENT_BYTES and not self._has_failed:
            return [self._failure(ProviderError(f"the provider sent an event of more than {MAX_EVENT_BYTES} bytes", kind="bad_reply"))]
        return []

    def close(self) -> list[Event]:
        rest = self._blocks.close()
        events = self._read_blocks(rest, is_cut=True) if rest else []
        if self._usage is not None:
            last = Event()
            self._tell_usage(last)
            events.insert(0, last)
        if not self._has_failed:
            if self._finished and self._begun <= self._finished:
                events.append(Event(is_done=True))
            else:
                events.append(self._failure(ProviderError("the provider's stream ended before it was complete", kind="cut")))
        return events

    def text_so_far(self) -> tuple[str, int]:
        return self._kept.text(), self._kept.more_bytes

    # --- blocks -------------------------------------------------------------------------------------------------------------

    def _failure(self, error: ProviderError) -> Event:
        self._has_failed = True
        return Event(count=1, error=error)

    def _read_blocks(self, run: bytes, is_cut: bool = False) -> list[Event]:
        events: list[Event] = []
        for block in run.split(b"\n\n"):
            if not block:
                continue
            payload = block[6:] if block.startswith(b"data: ") and b"\n" not in block else read_block(block)
            if payload is None and block.lstrip()[:1] in (b"{", b"["):
                payload = block  # an error comes as bare JSON
            if not payload or self._has_failed:
                continue
            try:
                pairs = _decode(payload)
            except _UNREADABLE:
                if not is_cut:  # half an event says nothing
                    events.append(self._failure(ProviderError("the provider sent an event that is no JSON", kind="bad_reply")))
                continue
            if type(pairs) is list and len(pairs) == 1:
                pairs = pairs[0]
            if type(pairs) is dict:
                events += self._read_chunk(pairs)
        return events

    # --- chunks -------------------------------------------------------------------------------------------------------------

    def _read_chunk(self, pairs: Bag) -> list[Event]:
        if pairs.get("error"):
            return [self._failure(read_error_object(pairs["error"]))]
        candidates, usage = pairs.pop("candidates", None), pairs.pop("usageMetadata", None)
        reply_id, model = pairs.pop("responseId", None), pairs.pop("modelVersion", None)
        self._reply_id = reply_id if isinstance(reply_id, str) else self._reply_id
        model = model if isinstance(model, str) else ""
        deltas: list[Delta] = []
        for place, candidate in enumerate(candidates if type(candidates) is list else ()):
            if type(candidate) is dict:
                deltas += self._read_candidate(candidate, place)
        if not deltas and blocked(pairs):
            self._finished.add(0)
            deltas.append(Delta(0, finish_reason="content_filter"))
        created = created_at(pairs)
        events = [
            Event(chunk=Chunk(self._reply_id, created, model, [delta], {}, NAME), is_final=delta.finish_reason is not None) for delta in deltas
        ] or [Event(chunk=Chunk(self._reply_id, created, model, [], {}, NAME))]
        events[0].count = 1
        last = events[-1]
        assert last.chunk is not None
        last.chunk.bag = pairs
        if type(usage) is dict:
            self._usage = usage
        if self._finished:
            self._tell_usage(last, blocked(pairs))
        return events

    def _tell_usage(self, event: Event, is_blocked: bool = False) -> None:
        """Each chunk's usage holds the one before: only those from the finish on, or the last of a broken stream, are read."""
        usage, self._usage = self._usage, None
        if usage is not None:
            read = read_usage(usage, is_blocked)
            if read is not None and not read.output_tokens and not self._kept.is_empty and not self._finished:
                return  # broken off before its output was counted by the provider: we count what came
            event.usage = read
            if event.usage is not None:
                event.raw_usage, event.service_tier = _encode(usage), service_tier(usage)

    def _read_candidate(self, candidate: Bag, place: int) -> list[Delta]:
        index = candidate.pop("index", place)
        index = index if type(index) is int else place
        content = candidate.pop("content", None)
        parts = content.get("parts") if type(content) is dict else None
        deltas = [self._read_part(read_part(part), index) for part in parts] if type(parts) is list else []
        if not deltas:
            deltas.append(Delta(index))
        if index not in self._begun:
            self._begun.add(index)
            deltas[0].role = "assistant"
        last = deltas[-1]
        last.finish_reason = read_finish(candidate.get("finishReason"), bool(self._call_counts.get(index)))
        if last.finish_reason is not None:
            self._finished.add(index)
        if "logprobsResult" in candidate:
            last.logprobs = read_logprobs(candidate["logprobsResult"])
        if "groundingMetadata" in candidate:
            text = Text("".join(self._texts.get(index, ())))
            read_citations(candidate["groundingMetadata"], [text])
            last.citations = text.citations
        last.bag = candidate
        return deltas

    def _read_part(self, part: Part, index: int) -> Delta:
        if type(part) is Text:
            self._kept.add(part.text, len(part.text))
            self._texts.setdefault(index, []).append(part.text)
            return Delta(index, text=part.text, delta_bag=part.bag)
        if type(part) is Reasoning:
            self._kept.add(part.text, len(part.text))
            return Delta(
                index, reasoning=part.text, delta_bag=part.bag, signature=part.signature, encrypted=part.encrypted, origin=part.origin
            )
        if type(part) is not ToolCall:
            return Delta(index, parts=[part])
        number = self._call_counts.get(index, 0)
        self._call_counts[index] = number + 1
        self._kept.add(part.name + part.arguments, len(part.name) + len(part.arguments))
        call_id = part.id or made_up_id(self._reply_id, index, number)
        call = ToolCallDelta(number, call_id, part.name, part.arguments, "function", part.bag, part.signature, part.origin)
        return Delta(index, tool_calls=[call])
