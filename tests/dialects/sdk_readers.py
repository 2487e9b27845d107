"""The official SDKs' own stream readers, fed with what a client of ours would get: they insist on their grammar."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx2
from anthropic import Anthropic
from google.genai import types as genai_types
from openai import NOT_GIVEN
from openai._models import construct_type
from openai.lib.streaming.chat._completions import ChatCompletionStreamState
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseStreamEvent


def _events(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]


def _read_chat(out: bytes) -> dict[str, Any]:
    state: Any = ChatCompletionStreamState()
    for chunk in _events(out):
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=chunk))
    message = state.current_completion_snapshot.choices[0].message
    calls = [(call.function.name, json.loads(call.function.arguments or "{}")) for call in message.tool_calls or []]
    return {"text": (message.content or "") + (message.refusal or ""), "reasoning": getattr(message, "reasoning_content", None) or "", "calls": calls}


def _read_responses(out: bytes) -> dict[str, Any]:
    state: Any = ResponseStreamState(input_tools=NOT_GIVEN, text_format=NOT_GIVEN)
    events = _events(out)
    for event in events:
        state.handle_event(construct_type(type_=ResponseStreamEvent, value=event))
    said: dict[str, Any] = {"text": "", "reasoning": "", "calls": []}
    for item in events[-1]["response"]["output"]:
        if item["type"] == "message":
            said["text"] += "".join(part.get("text") or part.get("refusal") or "" for part in item["content"])
        elif item["type"] in ("function_call", "custom_tool_call"):
            given = json.loads(item["arguments"] or "{}") if "arguments" in item else {"input": item["input"]}
            said["calls"].append((item["name"], given))
    return said


def _read_messages(out: bytes) -> dict[str, Any]:
    handler = httpx2.MockTransport(lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=out))
    with Anthropic(api_key="k", base_url="http://none.invalid", http_client=httpx2.Client(transport=handler)) as client:
        with client.messages.stream(model="m", max_tokens=1, messages=[{"role": "user", "content": "x"}]) as stream:
            message = stream.get_final_message()
    blocks: Any = message.content
    return {
        "text": "".join(block.text for block in blocks if block.type == "text"),
        "reasoning": "".join(block.thinking for block in blocks if block.type == "thinking"),
        "calls": [(block.name, block.input) for block in blocks if block.type == "tool_use"],
    }


def _read_gemini(out: bytes) -> dict[str, Any]:
    said: dict[str, Any] = {"text": "", "reasoning": "", "calls": []}
    for event in _events(out.replace(b"\r\n", b"\n")):
        chunk = genai_types.GenerateContentResponse._from_response(response=event, kwargs={})
        for part in (chunk.candidates[0].content and chunk.candidates[0].content.parts or []) if chunk.candidates else []:
            if part.text:
                said["reasoning" if part.thought else "text"] += part.text
            if part.function_call:
                said["calls"].append((part.function_call.name, part.function_call.args or {}))
    return said


_READERS: dict[str, Callable[[bytes], dict[str, Any]]] = {
    "openai-chat": _read_chat, "openai-responses": _read_responses, "anthropic-messages": _read_messages, "gemini": _read_gemini,
}  # fmt: skip


def check_stream(name: str, out: bytes, said: dict[str, Any]) -> None:
    """That the SDK takes the stream and reads what was said."""
    read = _READERS[name](out)
    assert read["text"] == said["text"]
    assert read["calls"] == said["calls"]
    assert name == "openai-responses" or read["reasoning"] == said["reasoning"]
