"""The simulated provider speaking OpenAI chat: what it takes, refuses and answers. As most that call themselves compatible it passes over
fields it does not know; messages it reads as the vendor does (developers.openai.com/api, read 2026-11). Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from aigate.sim.answers import MAX_CHOICES, Answers, ChatRequest
from aigate.sim.behaviours import Behaviour
from aigate.sim.check import Invalid, check_base64, need, one_of
from aigate.sim.replies import Identity, Piece, asks_usage, error_body, error_event, plain_body, stream_pieces
from aigate.sim.server import Request

_decode = msgspec.json.Decoder(ChatRequest).decode
_PARTS = {"text": ("user", "assistant", "system", "developer", "tool"), "image_url": ("user",), "video_url": ("user",), "input_audio": ("user",),
          "file": ("user",), "refusal": ("assistant",), "thinking": ("assistant",)}  # fmt: skip
_INSIDE = {"image_url": dict, "video_url": dict, "input_audio": dict, "file": dict, "text": str, "refusal": str, "thinking": list}


def read(request: Request) -> ChatRequest:
    try:
        chat = _decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Invalid(f"The request body cannot be used: {error}") from error
    need(chat.messages, "'messages' must not be empty.", "messages")
    if chat.n is not None and not 1 <= chat.n <= MAX_CHOICES:
        raise Invalid(f"'n' must be from 1 to {MAX_CHOICES}.", "n")
    for name in ("max_tokens", "max_completion_tokens"):
        value = getattr(chat, name)
        if value is not None and value < 1:
            raise Invalid(f"'{name}' must be at least 1.", name)
    _check_messages(chat.messages)
    return chat


def _check_messages(messages: list[dict]) -> None:
    waiting: set[object] = set()  # ids of the calls of the message before, not yet answered
    for place, message in enumerate(messages):
        path, role, content = f"messages[{place}]", message.get("role"), message.get("content")
        if role == "tool":
            call_id = message.get("tool_call_id")
            need(call_id in waiting, "messages with role 'tool' must be a response to a preceding message with 'tool_calls'", f"{path}.role")
            waiting.discard(call_id)
        else:
            need(not waiting, f"'tool_calls' must be followed by tool messages responding to each 'tool_call_id': {sorted(map(str, waiting))}", path)
        if isinstance(content, list):
            for at, part in enumerate(content):
                _check_part(part, role, f"{path}.content[{at}]")
        calls = message.get("tool_calls")
        if role == "assistant" and isinstance(calls, list):
            waiting = {call.get("id") for call in calls if isinstance(call, dict)}
    need(not waiting, "'tool_calls' must be followed by tool messages", "messages")


def _check_part(part: Any, role: object, path: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    one_of(kind, tuple(_PARTS), f"{path}.type")
    need(role in _PARTS[kind], f"a part of type {kind!r} is not taken of {role!r}", path)
    need(isinstance(part.get(kind), _INSIDE[kind]), f"must have a field {kind!r}", path)
    if kind == "image_url":
        url = part[kind].get("url")
        need(isinstance(url, str) and url.startswith(("https://", "http://", "data:")), "must be a URL", f"{path}.image_url.url")
        if url.startswith("data:"):
            check_base64(url.partition(",")[2], f"{path}.image_url.url")


def plain(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> bytes:
    return plain_body(identity, answers, behaviour)


def stream(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> Iterator[Piece]:
    return stream_pieces(identity, answers, behaviour, asks_usage=asks_usage(chat))


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    return error_body(status, message, param=param, code=code)


__all__ = ["error", "error_event", "plain", "read", "stream"]
