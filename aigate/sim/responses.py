"""The simulated provider speaking OpenAI Responses: what it takes, refuses and answers (developers.openai.com/api, read 2026-11). It keeps
nothing: a request that names an earlier response is refused. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from aigate.sim.answers import Answer, Answers, ChatRequest
from aigate.sim.behaviours import Behaviour
from aigate.sim.check import (
    ANY,
    FLAG,
    LIST,
    NUMBER,
    OBJECT,
    TEXT,
    WHOLE,
    Fields,
    body_of,
    check,
    check_base64,
    check_closed,
    is_signed,
    need,
    one_of,
    sign,
)  # fmt: skip
from aigate.sim.replies import PADDING, Identity, Piece, encode, error_body
from aigate.sim.server import Request

VENDOR = "openai"
ENCRYPTED = "reasoning.encrypted_content"
_REQUEST: Fields = {
    "model": TEXT, "input": (str, list), "instructions": (str, type(None)), "stream": FLAG, "store": FLAG, "include": LIST, "reasoning": OBJECT,
    "text": OBJECT, "tools": LIST, "tool_choice": (str, dict), "parallel_tool_calls": FLAG, "max_tool_calls": WHOLE, "max_output_tokens": WHOLE,
    "temperature": NUMBER, "top_p": NUMBER, "top_logprobs": WHOLE, "truncation": TEXT, "metadata": OBJECT, "safety_identifier": TEXT,
    "service_tier": TEXT, "user": TEXT, "prompt_cache_key": TEXT, "prompt_cache_options": OBJECT, "prompt_cache_retention": TEXT,
    "stream_options": OBJECT, "background": FLAG, "moderation": OBJECT, "context_management": LIST,
}  # fmt: skip
_CALL_ID: Fields = {"type": TEXT, "id": TEXT, "status": TEXT, "call_id": TEXT}
_ITEMS: dict[str, tuple[Fields, tuple[str, ...]]] = {
    "message": ({"type": TEXT, "id": TEXT, "status": TEXT, "role": TEXT, "content": (str, list), "phase": TEXT}, ("role", "content")),
    "reasoning": ({"type": TEXT, "id": TEXT, "summary": LIST, "content": LIST, "encrypted_content": (str, type(None)), "status": ANY}, ("id", "summary")),
    "function_call": ({**_CALL_ID, "name": TEXT, "arguments": TEXT, "namespace": TEXT}, ("call_id", "name", "arguments")),
    "function_call_output": ({**_CALL_ID, "output": (str, list)}, ("call_id", "output")),
    "custom_tool_call": ({**_CALL_ID, "name": TEXT, "input": TEXT}, ("call_id", "name", "input")),
    "custom_tool_call_output": ({**_CALL_ID, "output": (str, list)}, ("call_id", "output")),
}
_PARTS: dict[str, tuple[Fields, tuple[str, ...]]] = {
    "input_text": ({"type": TEXT, "text": TEXT, "prompt_cache_breakpoint": OBJECT}, ("text",)),
    "input_image": ({"type": TEXT, "image_url": TEXT, "file_id": TEXT, "detail": TEXT}, ()),
    "input_file": ({"type": TEXT, "file_id": TEXT, "file_url": TEXT, "file_data": TEXT, "filename": TEXT, "detail": TEXT}, ()),
    "output_text": ({"type": TEXT, "text": TEXT, "annotations": LIST, "logprobs": LIST}, ("text",)),
    "refusal": ({"type": TEXT, "refusal": TEXT}, ("refusal",)),
}
_INPUTS = ("input_text", "input_image", "input_file")
_TOOL: Fields = {"type": TEXT, "name": TEXT, "description": TEXT, "parameters": (dict, type(None)), "strict": (bool, type(None))}
_CUSTOM: Fields = {"type": TEXT, "name": TEXT, "description": TEXT, "format": OBJECT}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")


# --- what it takes ----------------------------------------------------------------------------------------------------------------


def read(request: Request) -> ChatRequest:
    body = check(body_of(request.body), "", _REQUEST, ("model", "input"))
    need(0 <= body.get("temperature", 0) <= 2, "must be from 0 to 2", "temperature")
    need(body.get("max_output_tokens", 16) >= 1, "must be at least 1", "max_output_tokens")
    need(not body.get("background"), "background responses are not simulated", "background")
    one_of(body.get("truncation", "disabled"), ("auto", "disabled"), "truncation")
    reasoning = check(body.get("reasoning", {}), "reasoning", {"effort": ANY, "summary": ANY, "context": TEXT, "mode": TEXT})
    one_of(reasoning.get("effort") or "none", _EFFORTS, "reasoning.effort")
    tools = [_read_tool(tool, f"tools[{place}]") for place, tool in enumerate(body.get("tools", ()))]
    choice = _read_choice(body.get("tool_choice"), [tool["function"]["name"] for tool in tools])
    given, instructions = body["input"], body.get("instructions")
    need(given, "must not be empty", "input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    lead = [{"role": "system", "content": instructions}] if instructions else []
    return ChatRequest(
        body["model"], lead + _read_items(items), stream=body.get("stream"), max_tokens=body.get("max_output_tokens"), tools=tools or None,
        tool_choice=choice, response_format=_read_format(body.get("text", {})), shows_reasoning=bool(reasoning.get("summary")),
        gives_proof=ENCRYPTED in body.get("include", ()),
    )  # fmt: skip


def _read_items(items: list[Any]) -> list[dict]:
    chat: list[dict] = []
    calls: dict[str, str] = {}  # call id → the kind of its output; without a result so far
    for place, item in enumerate(items):
        path = f"input[{place}]"
        need(type(item) is dict, "must be an object", path)
        kind = item.get("type", "message")
        need(kind in _ITEMS, f"Invalid value: {kind!r}. Supported values are: {', '.join(_ITEMS)}.", f"{path}.type")
        check(item, path, *_ITEMS[kind])
        if kind == "message":
            chat.append({"role": item["role"], "content": _read_content(item, path)})
        elif kind == "reasoning":
            _check_reasoning(item, path)
            need(place + 1 < len(items), f"Item {item['id']!r} of type 'reasoning' was provided without its required following item.", path)
        elif kind.endswith("_output"):
            need(calls.get(item["call_id"]) == kind, f"No tool call found for function call output with call_id {item['call_id']}.", path)
            del calls[item["call_id"]]
            parts = item["output"] if isinstance(item["output"], list) else [{"type": "input_text", "text": item["output"]}]
            chat.append({"role": "tool", "tool_call_id": item["call_id"], "content": _read_parts(parts, f"{path}.output", _INPUTS)})
        else:
            need(item["call_id"] not in calls, "two calls have one call_id", path)
            need(_NAME.fullmatch(item["name"]), "must match '^[a-zA-Z0-9_-]{1,64}$'", f"{path}.name")
            need(item.get("id", "fc_").startswith(("fc_", "ctc_")), "Expected an ID that begins with 'fc'.", f"{path}.id")
            calls[item["call_id"]] = f"{kind}_output"
            function = {"name": item["name"], "arguments": item.get("arguments", item.get("input"))}
            chat.append({"role": "assistant", "content": "", "tool_calls": [{"id": item["call_id"], "type": "function", "function": function}]})
    need(not calls, f"No tool output found for function call {', '.join(sorted(calls))}.", "input")
    return chat


def _read_content(item: dict, path: str) -> list[dict]:
    role = item["role"]
    one_of(role, ("user", "assistant", "system", "developer"), f"{path}.role")
    need(item.get("id", "msg_").startswith("msg_"), "Expected an ID that begins with 'msg'.", f"{path}.id")
    if isinstance(item["content"], str):
        return [{"type": "text", "text": item["content"]}]
    return _read_parts(item["content"], f"{path}.content", ("output_text", "refusal") if role == "assistant" else _INPUTS)


def _read_parts(parts: list[Any], path: str, allowed: tuple[str, ...]) -> list[dict]:
    read = []
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        kind = part.get("type") if type(part) is dict else None
        need(kind in allowed, f"Invalid value: {kind!r}. Supported values are: {', '.join(allowed)}.", f"{here}.type")
        check(part, here, *_PARTS[kind])  # type: ignore[index]
        if kind == "input_image":
            need(("image_url" in part) != ("file_id" in part), "give either image_url or file_id", here)
            one_of(part.get("detail", "auto"), ("low", "high", "auto", "original"), f"{here}.detail")
            _check_data(part.get("image_url"), f"{here}.image_url")
            read.append({"type": "image_url", "image_url": {"url": part.get("image_url") or part["file_id"]}})
        elif kind == "input_file":
            need(sum(key in part for key in ("file_id", "file_url", "file_data")) == 1, "give one of file_id, file_url and file_data", here)
            need("file_data" not in part or part.get("filename"), "file_data needs a filename", here)
            _check_data(part.get("file_data"), f"{here}.file_data")
            read.append({"type": "image_url", "image_url": {"url": part.get("file_data") or part.get("file_url") or part["file_id"]}})
        else:
            read.append({"type": "text", "text": part.get("text", part.get("refusal"))})
    return read


def _check_data(url: str | None, path: str) -> None:
    if url is not None and url.startswith("data:"):
        check_base64(url.partition(",")[2], path)


def _check_reasoning(item: dict, path: str) -> None:
    need(item["id"].startswith("rs_"), "Expected an ID that begins with 'rs'.", f"{path}.id")
    proof = item.get("encrypted_content")
    need(proof, f"Item with id {item['id']!r} not found. Items are not persisted when `store` is set to false.", path)
    need(is_signed(VENDOR, item["id"], proof), "The encrypted content could not be verified.", f"{path}.encrypted_content")
    for place, part in enumerate(item["summary"]):
        check(part, f"{path}.summary[{place}]", {"type": TEXT, "text": TEXT}, ("type", "text"))


def _read_tool(tool: Any, path: str) -> dict:
    kind = tool.get("type") if type(tool) is dict else None
    one_of(kind, ("function", "custom"), f"{path}.type")
    check(tool, path, _TOOL if kind == "function" else _CUSTOM, ("name", "parameters") if kind == "function" else ("name",))
    need(_NAME.fullmatch(tool["name"]), "must match '^[a-zA-Z0-9_-]{1,64}$'", f"{path}.name")
    if kind == "function" and tool.get("strict", True) and tool["parameters"]:
        check_closed(tool["parameters"], f"{path}.parameters", all_required=True)
    parameters = tool.get("parameters") or {"type": "object", "properties": {}}
    return {"type": "function", "function": {"name": tool["name"], "parameters": parameters}}


def _read_choice(choice: Any, names: list[str]) -> str | dict | None:
    if choice is None or isinstance(choice, str):
        one_of(choice, (None, "auto", "none", "required"), "tool_choice")
        need(choice != "required" or names, "Tool choice 'required' must be specified with 'tools' parameter.", "tool_choice")
        return choice
    kind = choice.get("type")
    if kind == "allowed_tools":
        check(choice, "tool_choice", {"type": TEXT, "mode": TEXT, "tools": LIST}, ("mode", "tools"))
        return "required" if choice["mode"] == "required" else "auto"
    one_of(kind, ("function", "custom"), "tool_choice.type")
    check(choice, "tool_choice", {"type": TEXT, "name": TEXT}, ("name",))
    need(choice["name"] in names, f"Tool choice {choice['name']!r} not found in 'tools' parameter.", "tool_choice")
    return {"type": "function", "function": {"name": choice["name"]}}


def _read_format(text: dict) -> dict | None:
    check(text, "text", {"format": OBJECT, "verbosity": TEXT})
    one_of(text.get("verbosity", "medium"), ("low", "medium", "high"), "text.verbosity")
    form = text.get("format", {"type": "text"})
    one_of(form.get("type"), ("text", "json_object", "json_schema"), "text.format.type")
    if form["type"] != "json_schema":
        check(form, "text.format", {"type": TEXT})
        return None if form["type"] == "text" else form
    known: Fields = {"type": TEXT, "name": TEXT, "schema": OBJECT, "strict": (bool, type(None)), "description": TEXT}
    check(form, "text.format", known, ("name", "schema"))
    if form.get("strict"):
        check_closed(form["schema"], "text.format.schema", all_required=True)
    return {"type": "json_schema", "json_schema": {"name": form["name"], "schema": form["schema"]}}


# --- what it answers ----------------------------------------------------------------------------------------------------------------


def _usage(answers: Answers) -> dict:
    return {
        "input_tokens": answers.prompt_tokens,
        "input_tokens_details": {"cached_tokens": answers.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": answers.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": answers.reasoning_tokens},
        "total_tokens": answers.prompt_tokens + answers.completion_tokens,
    }


def _response(identity: Identity, chat: ChatRequest, status: str, output: list[dict], usage: dict | None) -> dict:
    return {
        "id": f"resp_{identity.id}", "object": "response", "created_at": identity.created, "status": status, "model": identity.model, "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None, "instructions": None, "metadata": {},
        "output": output, "parallel_tool_calls": True, "temperature": 1.0, "top_p": 1.0, "tool_choice": "auto", "tools": [], "store": False,
        "text": {"format": chat.response_format if (chat.response_format or {}).get("type") == "json_object" else {"type": "text"}}, "usage": usage,
    }  # fmt: skip


def _items(identity: Identity, chat: ChatRequest, answer: Answer) -> list[dict]:
    """The output, each item whole."""
    items: list[dict] = []
    if answer.reasoning:
        item_id = f"rs_{identity.id}"
        summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}] if chat.shows_reasoning else []
        items.append({"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": sign(VENDOR, item_id) if chat.gives_proof else None})
    if answer.content or not answer.calls:
        part = {"type": "output_text", "text": "".join(answer.content), "annotations": [], "logprobs": []}
        items.append({"id": f"msg_{identity.id}", "type": "message", "status": "completed", "role": "assistant", "content": [part]})
    for place, call in enumerate(answer.calls):
        items.append({
            "id": f"fc_{identity.id}{place}", "type": "function_call", "status": "completed", "call_id": call.id, "name": call.name,
            "arguments": "".join(call.fragments),
        })  # fmt: skip
    return items


def _status(answer: Answer) -> str:
    return "incomplete" if answer.finish_reason == "length" else "completed"


def plain(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> bytes:
    answer = answers.choices[0]
    output = _items(identity, chat, answer)
    if behaviour.pad_bytes:
        output[-1]["content"][0]["text"] += PADDING
    usage = None if behaviour.usage == "none" else _usage(answers)
    return encode(_response(identity, chat, _status(answer), output, usage))


class _Stream:
    """Numbers the events."""

    def __init__(self) -> None:
        self.number = 0

    def event(self, kind: str, tokens: int = 0, **fields: object) -> Piece:
        data = encode({"type": kind, "sequence_number": self.number, **fields})
        self.number += 1
        return Piece(b"event: %b\ndata: %b\n\n" % (kind.encode(), data), tokens)


def stream(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> Iterator[Piece]:
    answer, out = answers.choices[0], _Stream()
    begun = _response(identity, chat, "in_progress", [], None)
    yield out.event("response.created", response=begun)
    yield out.event("response.in_progress", response=begun)
    items = _items(identity, chat, answer)
    first_call = len(items) - len(answer.calls)
    for index, item in enumerate(items):
        if item["type"] == "reasoning":
            yield from _stream_reasoning(out, index, item, answer)
        elif item["type"] == "message":
            yield from _stream_message(out, index, item, answer)
        else:
            yield from _stream_call(out, index, item, answer.calls[index - first_call].fragments)
        yield out.event("response.output_item.done", output_index=index, item=item)
    usage = None if behaviour.usage == "none" else _usage(answers)
    yield out.event(f"response.{_status(answer)}", response=_response(identity, chat, _status(answer), items, usage))


def _stream_reasoning(out: _Stream, index: int, item: dict, answer: Answer) -> Iterator[Piece]:
    place = {"item_id": item["id"], "output_index": index, "summary_index": 0}
    yield out.event("response.output_item.added", output_index=index, item={**item, "summary": [], "encrypted_content": None})
    if not item["summary"]:
        return
    yield out.event("response.reasoning_summary_part.added", **place, part={"type": "summary_text", "text": ""})
    for token in answer.reasoning:
        yield out.event("response.reasoning_summary_text.delta", 1, **place, delta=token)
    yield out.event("response.reasoning_summary_text.done", **place, text=item["summary"][0]["text"])
    yield out.event("response.reasoning_summary_part.done", **place, part=item["summary"][0])


def _stream_message(out: _Stream, index: int, item: dict, answer: Answer) -> Iterator[Piece]:
    place = {"item_id": item["id"], "output_index": index, "content_index": 0}
    part = item["content"][0]
    yield out.event("response.output_item.added", output_index=index, item={**item, "status": "in_progress", "content": []})
    yield out.event("response.content_part.added", **place, part={**part, "text": ""})
    for token in answer.content:
        yield out.event("response.output_text.delta", 1, **place, delta=token, logprobs=[])
    yield out.event("response.output_text.done", **place, text=part["text"], logprobs=[])
    yield out.event("response.content_part.done", **place, part=part)


def _stream_call(out: _Stream, index: int, item: dict, fragments: list[str]) -> Iterator[Piece]:
    place = {"item_id": item["id"], "output_index": index}
    yield out.event("response.output_item.added", output_index=index, item={**item, "status": "in_progress", "arguments": ""})
    for fragment in fragments:
        yield out.event("response.function_call_arguments.delta", 1, **place, delta=fragment)
    yield out.event("response.function_call_arguments.done", **place, name=item["name"], arguments=json.loads(encode(item))["arguments"])


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    return error_body(status, message, param=param, code=code)


def error_event() -> bytes:
    fields = {"type": "error", "sequence_number": 0, "code": "server_error", "message": "The simulated provider failed in the middle of its answer, as asked."}
    return b"event: error\ndata: %b\n\n" % encode({**fields, "param": None})
