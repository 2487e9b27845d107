"""The legacy completions format (POST /v1/completions) as a surface: one prompt in, its continuation out, by any model that chats. Pure.

No provider is asked in it, so it keeps only the client's half of `Dialect`. Reasoning and tool calls have no place in its replies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from aigate.core.call import Call
from aigate.core.events import Event
from aigate.core.neutral import Delta, Message, Refusal, Reply, Request, Text
from aigate.core.params import GATEWAY_FIELDS
from aigate.dialects import openai_errors
from aigate.dialects.body import read_pairs, typed, wrong
from aigate.dialects.dialect import Head, Settlement
from aigate.dialects.openai_chat_request import PARAMS, read_models, read_options
from aigate.dialects.openai_usage import write_usage_object
from aigate.errors import ClientError, GateError

NAME = "openai-completions"
ACTED_ON = frozenset({"model", "prompt", "stream", "stream_options", "max_tokens", "n", "best_of", "logprobs", "echo", "fallbacks"})
_OWN = frozenset({"best_of", "suffix"})
_NOT_PARAMS = GATEWAY_FIELDS | {"model", "prompt", "stream", "echo", "logprobs", "stream_options"}
_DONE = b"data: [DONE]\n\n"

_prompt = msgspec.json.Decoder(str | list[str]).decode
_flag = msgspec.json.Decoder(bool | None).decode
_top = msgspec.json.Decoder(Annotated[int, Meta(ge=0, le=5)] | None).decode
_count = msgspec.json.Decoder(Annotated[int, Meta(ge=1)] | None).decode
_encode = msgspec.json.encode


class OpenAICompletions:
    name = NAME
    id_header = b""
    params = PARAMS
    write_error = staticmethod(openai_errors.write_error)

    def read_call(self, body: bytes, endpoint: str, head: Head) -> Call:
        pairs = read_pairs(body, ACTED_ON)
        _read_prompt(pairs)
        call = Call(NAME, endpoint, pairs, len(body), read_models(pairs))
        read_options(call)
        top = typed(pairs, "logprobs", _top, "a whole number from 0 to 5")
        if typed(pairs, "echo", _flag, "true or false") and top is not None:
            words = "echo with logprobs: a chat model gives no log-probabilities of the prompt; leave one of them out"
            raise ClientError(words, param="logprobs", code="unsupported_parameter")
        best_of = typed(pairs, "best_of", _count, "a whole number from 1")
        if best_of is not None and best_of < call.n:  # type: ignore[operator]
            raise ClientError(f"best_of must be at least n ({call.n})", param="best_of")
        return call

    def read_request(self, call: Call) -> Request:
        pairs = call.pairs
        messages = [Message("user", [Text(_read_prompt(pairs))])]
        request = Request(call.models[0] if call.models else "", messages, is_stream=call.is_stream, dialect=NAME)
        bag = {key: raw for key, raw in pairs.items() if key in _OWN}
        if "best_of" in bag and typed(bag, "best_of", _count, "a whole number from 1") in (None, call.n):
            del bag["best_of"]  # nothing is chosen among
        request.bags[NAME] = bag
        request.params = {PARAMS.get(key, key): raw for key, raw in pairs.items() if key not in _NOT_PARAMS and key not in _OWN}
        top = typed(pairs, "logprobs", _top, "a whole number from 0 to 5")
        if top is not None:
            request.params |= {"logprobs": Raw(b"true"), "top_logprobs": Raw(_encode(top))}
            request.spelling["top_logprobs"] = "logprobs"
        return request

    def write_reply(self, reply: Reply, asked: str, settlement: Settlement) -> bytes:
        before = _echoed(reply.echo)
        choices = []
        for choice in reply.choices:
            text = before + "".join(part.text for part in choice.parts if type(part) in (Text, Refusal))  # type: ignore[union-attr]
            choices.append(_choice(choice.index, text, choice.logprobs, choice.finish_reason or "stop"))
        head = {"id": reply.id, "object": "text_completion", "created": reply.created, "model": asked}
        return _encode({**head, "choices": choices, "usage": write_usage_object(settlement)})

    def stream_writer(self, call: Call, asked: str, reply_id: str) -> CompletionsStreamWriter:
        return CompletionsStreamWriter(call, asked, reply_id)


class CompletionsStreamWriter:
    __slots__ = ("_asked", "_include_usage", "_id", "_created", "_echo", "_begun", "_sent")

    def __init__(self, call: Call, asked: str, reply_id: str):
        self._asked = asked
        self._include_usage = call.include_usage
        self._id = reply_id
        self._created = call.received_at
        self._echo = _echoed(call.pairs)
        self._begun: set[int] = set()  # choices that were given the echo
        self._sent: dict[int, int] = {}  # choice → characters of its text so far

    def write(self, events: Sequence[Event]) -> bytes:
        pieces: list[bytes] = []
        for event in events:
            chunk = event.chunk
            if chunk is None:
                continue
            if event.texts is None:
                choices = [written for delta in chunk.deltas if (written := self._write_delta(delta)) is not None]
                if choices:
                    pieces.append(self._chunk(choices))
            elif chunk.deltas[0].text:
                texts = b"".join(event.texts)  # what arrived together goes out together
                text = msgspec.json.decode(b'"' + texts + b'"')
                pieces.append(self._chunk([self._text(chunk.deltas[0].index, text)]))
        return b"".join(pieces)

    def finish(self, settlement: Settlement) -> bytes:
        if self._include_usage is False:
            return _DONE
        return self._chunk([], usage=write_usage_object(settlement)) + _DONE

    def fail(self, error: GateError, request_id: str) -> bytes:
        return b"data: " + openai_errors.write_error(error, request_id) + b"\n\n" + _DONE

    def keep_alive(self) -> bytes:
        return b": keep-alive\n\n"

    def _chunk(self, choices: list[dict[str, Any]], **fields: object) -> bytes:
        head = {"id": self._id, "object": "text_completion", "created": self._created, "model": self._asked}
        return b"data: " + _encode({**head, "choices": choices, **fields}) + b"\n\n"

    def _text(self, index: int, text: str) -> dict[str, Any]:
        if self._echo and index not in self._begun:
            text = self._echo + text
        self._begun.add(index)
        return _choice(index, text, None, None)

    def _write_delta(self, delta: Delta) -> dict[str, Any] | None:
        text = (delta.text or "") + (delta.refusal or "")
        if not text and delta.finish_reason is None:
            return None
        start = self._sent.get(delta.index, 0)
        self._sent[delta.index] = start + len(text)
        return {**self._text(delta.index, text), "logprobs": _logprobs(delta.logprobs, start), "finish_reason": delta.finish_reason}


def _read_prompt(pairs: Mapping[str, Raw]) -> str:
    raw = pairs.get("prompt")
    if raw is None:
        raise ClientError("prompt is missing: send a string", param="prompt")
    prompt = typed(pairs, "prompt", _prompt, "a string")
    if isinstance(prompt, list):
        if len(prompt) != 1:
            raise wrong("prompt", "one string: send one call for each prompt", raw)
        return prompt[0]
    return prompt  # type: ignore[return-value]


def _echoed(pairs: Mapping[str, Raw]) -> str:
    """The prompt where the caller wants it back in front of the answer."""
    return _read_prompt(pairs) if bytes(pairs.get("echo", b"")) == b"true" else ""


def _choice(index: int, text: str, logprobs: Any, finish_reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": _logprobs(logprobs), "finish_reason": finish_reason}


def _logprobs(given: Any, start: int = 0) -> dict[str, Any] | None:
    """Log-probabilities of chat in the columns of this format. `start`: characters of the text before."""
    entries = given.get("content") if type(given) is dict else None
    if not entries:
        return None
    offsets, at = [], start
    for entry in entries:
        offsets.append(at)
        at += len(entry["token"])
    return {
        "tokens": [entry["token"] for entry in entries],
        "token_logprobs": [entry["logprob"] for entry in entries],
        "top_logprobs": [{top["token"]: top["logprob"] for top in entry.get("top_logprobs") or ()} for entry in entries],
        "text_offset": offsets,
    }
