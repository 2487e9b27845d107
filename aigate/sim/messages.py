"""The simulated provider speaking Anthropic Messages: what it takes, refuses and answers (platform.claude.com/docs/en/api/messages,
versions 2023-06-01 and 2026-10-21, read 2026-11). Pure."""

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
    Invalid,
    body_of,
    check,
    check_base64,
    check_closed,
    check_schema,
    data_url,
    is_signed,
    need,
    one_of,
    sign,
)  # fmt: skip
from aigate.sim.replies import PADDING, Identity, Piece, encode
from aigate.sim.server import Request

VENDOR = "anthropic"
SAMPLING = ("temperature", "top_p", "top_k")
MAX_CACHE_MARKS = 4
_REQUEST: Fields = {
    "model": TEXT, "messages": LIST, "max_tokens": WHOLE, "system": (str, list), "stop_sequences": LIST, "stream": FLAG, "temperature": NUMBER,
    "top_p": NUMBER, "top_k": WHOLE, "thinking": OBJECT, "tools": LIST, "tool_choice": OBJECT, "metadata": OBJECT, "service_tier": TEXT,
    "output_config": OBJECT, "cache_control": OBJECT, "speed": TEXT, "inference_geo": TEXT, "container": ANY, "diagnostics": OBJECT,
}  # fmt: skip
_CACHE: Fields = {"type": TEXT, "ttl": TEXT}
_BLOCKS: dict[str, tuple[Fields, tuple[str, ...], tuple[str, ...]]] = {  # type → fields, required ones, roles
    "text": ({"text": TEXT, "citations": ANY}, ("text",), ("user", "assistant", "system")),
    "image": ({"source": OBJECT}, ("source",), ("user",)),
    "document": ({"source": OBJECT, "title": ANY, "context": ANY, "citations": OBJECT}, ("source",), ("user",)),
    "tool_use": ({"id": TEXT, "name": TEXT, "input": OBJECT, "caller": OBJECT}, ("id", "name", "input"), ("assistant",)),
    "tool_result": ({"tool_use_id": TEXT, "content": (str, list), "is_error": FLAG}, ("tool_use_id",), ("user",)),
    "thinking": ({"thinking": TEXT, "signature": TEXT}, ("thinking", "signature"), ("assistant",)),
    "redacted_thinking": ({"data": TEXT}, ("data",), ("assistant",)),
}
_TOOL: Fields = {"name": TEXT, "input_schema": OBJECT, "description": TEXT, "type": TEXT, "strict": FLAG, "cache_control": OBJECT}
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_ID, _NAME = re.compile(r"[a-zA-Z0-9_-]+"), re.compile(r"[a-zA-Z0-9_-]{1,128}")
_STOPS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}
_ERRORS = {400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
           413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error"}  # fmt: skip


# --- what it takes ----------------------------------------------------------------------------------------------------------------


def read(request: Request) -> ChatRequest:
    version = request.header(b"anthropic-version")
    need(version, "anthropic-version: header is required")
    one_of(version, ("2023-06-01", "2026-10-21"), "anthropic-version")
    body = body_of(request.body)
    if "thread" in body:
        raise Invalid("thread: this model keeps no threads", "thread", code="thread_unsupported_request")
    check(body, "", _REQUEST, ("model", "messages", "max_tokens"))
    need(body["max_tokens"] >= 1, "must be greater than or equal to 1", "max_tokens")
    for key in SAMPLING:
        need(key not in body or version < "2026-10-21", "is not supported since 2026-10-21", key)
    need(0 <= body.get("temperature", 0) <= 1, "range: 0..1", "temperature")
    for place, mark in enumerate(body.get("stop_sequences", ())):
        need(isinstance(mark, str) and mark.strip(), "each stop sequence must contain non-whitespace", f"stop_sequences.{place}")
    check(body.get("metadata", {}), "metadata", {"user_id": TEXT})
    need(encode(body).count(b'"cache_control":{"type":"ephemeral"') <= MAX_CACHE_MARKS, "A maximum of 4 blocks with cache_control may be provided.")
    tools = [_read_tool(tool, f"tools.{place}") for place, tool in enumerate(body.get("tools", ()))]
    choice = _read_choice(body, [tool["function"]["name"] for tool in tools])
    _check_thinking(body)
    system = body.get("system", "")
    instructions = system if isinstance(system, str) else "\n".join(block["text"] for block in _read_blocks(system, "system", "system"))
    lead = [{"role": "system", "content": instructions}] if instructions else []
    return ChatRequest(
        body["model"], lead + _read_messages(body["messages"]), stream=body.get("stream"), max_tokens=body["max_tokens"],
        stop=body.get("stop_sequences"), tools=tools or None, tool_choice=choice, response_format=_read_format(body.get("output_config", {})),
    )  # fmt: skip


def _read_messages(messages: list[Any]) -> list[dict]:
    need(messages, "at least one message is required", "messages")
    chat: list[dict] = []
    waiting: dict[str, str] = {}  # id of a call that its result must follow at once → path
    seen: set[str] = set()
    last_role = ""
    for place, message in enumerate(messages):
        path = f"messages.{place}"
        check(message, path, {"role": TEXT, "content": (str, list)}, ("role", "content"))
        role, content = message["role"], message["content"]
        one_of(role, ("user", "assistant", "system"), f"{path}.role")
        need(place or role == "user", 'first message must use the "user" role', path)
        need(role != "system" or last_role == "user", 'a message of role "system" may only follow one of role "user"', path)
        last_role = role
        need(content, "all messages must have non-empty content", path)
        blocks = [{"type": "text", "text": content}] if isinstance(content, str) else _read_blocks(content, f"{path}.content", role)
        results = [block for block in blocks if block["type"] == "tool_result"]
        need([block["type"] for block in blocks[: len(results)]] == ["tool_result"] * len(results), "tool_result blocks must come first", path)
        answered = [block["tool_use_id"] for block in results]
        for call_id in answered:
            need(call_id in waiting, f"unexpected `tool_use_id` found in `tool_result` blocks: {call_id}", path)
        missing = set(waiting) - set(answered)
        need(not missing, f"`tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(sorted(missing))}", path)
        waiting = {}
        for block in blocks:
            if block["type"] == "tool_use":
                need(block["id"] not in seen, "`tool_use` ids must be unique", path)
                seen.add(block["id"])
                waiting[block["id"]] = path
        chat += _as_chat(role, blocks)
    need(last_role != "assistant", "This model does not support assistant message prefill. The conversation must end with a user message.", "messages")
    return chat


def _read_blocks(blocks: object, path: str, role: str) -> list[dict]:
    need(type(blocks) is list, "must be a list of blocks", path)
    for place, block in enumerate(blocks):  # type: ignore[arg-type]
        here = f"{path}.{place}"
        kind = block.get("type") if type(block) is dict else None
        need(kind in _BLOCKS, f"Input tag {kind!r} found using 'type' does not match any of the expected tags", here)
        fields, required, roles = _BLOCKS[kind]
        need(role in roles or role == "tool_result", f"`{kind}` blocks are not permitted in {role} messages", here)
        check(block, here, {"type": TEXT, **fields, **({"cache_control": OBJECT} if "thinking" not in kind else {})}, required)
        if "cache_control" in block:
            check(block["cache_control"], f"{here}.cache_control", _CACHE, ("type",))
            one_of(block["cache_control"].get("ttl", "5m"), ("5m", "1h"), f"{here}.cache_control.ttl")
        _check_block(kind, block, here)
    return blocks  # type: ignore[return-value]


def _check_block(kind: str, block: dict, path: str) -> None:
    if kind == "text":
        need(block["text"], "text content blocks must be non-empty", path)
        need(block["text"].strip(), "text content blocks must contain non-whitespace text", path)
    elif kind in ("image", "document"):
        _check_source(kind, block["source"], f"{path}.source")
    elif kind == "tool_use":
        need(_ID.fullmatch(block["id"]), "String should match pattern '^[a-zA-Z0-9_-]+$'", f"{path}.id")
        need(_NAME.fullmatch(block["name"]), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", f"{path}.name")
    elif kind == "tool_result" and isinstance(block.get("content"), list):
        for inner in _read_blocks(block["content"], f"{path}.content", "tool_result"):
            one_of(inner["type"], ("text", "image", "document"), f"{path}.content")
    elif kind == "thinking":
        need(is_signed(VENDOR, block["thinking"], block["signature"]), "Invalid `signature` in `thinking` block", path)
    elif kind == "redacted_thinking":
        need(is_signed(VENDOR, "redacted", block["data"]), "Invalid `data` in `redacted_thinking` block", path)


def _check_source(kind: str, source: dict, path: str) -> None:
    how = source.get("type")
    if how == "base64":
        check(source, path, {"type": TEXT, "media_type": TEXT, "data": TEXT}, ("media_type", "data"))
        one_of(source["media_type"], _IMAGES if kind == "image" else ("application/pdf",), f"{path}.media_type")
        check_base64(source["data"], f"{path}.data")
    elif how == "url":
        check(source, path, {"type": TEXT, "url": TEXT}, ("url",))
        need(source["url"].startswith("https://"), "Only HTTPS URLs are supported.", f"{path}.url")
    elif how == "text" and kind == "document":
        check(source, path, {"type": TEXT, "media_type": TEXT, "data": TEXT}, ("media_type", "data"))
    else:
        raise Invalid(f"{path}: source of type {how!r} is not taken here", path, 404 if how == "file" else 400)


def _as_chat(role: str, blocks: list[dict]) -> list[dict]:
    """As the model behind all formats reads it."""
    chat: list[dict] = []
    parts: list[dict] = []
    for block in blocks:
        if block["type"] == "tool_result":
            content = block.get("content", "")
            inner = [{"type": "text", "text": content}] if isinstance(content, str) else [_as_part(each) for each in content]
            chat.append({"role": "tool", "tool_call_id": block["tool_use_id"], "content": inner})
        elif block["type"] in ("text", "image", "document"):
            parts.append(_as_part(block))
    calls = [
        {"id": block["id"], "type": "function", "function": {"name": block["name"], "arguments": json.dumps(block["input"])}}
        for block in blocks if block["type"] == "tool_use"
    ]  # fmt: skip
    if parts or calls:
        chat.append({"role": role, "content": parts, **({"tool_calls": calls} if calls else {})})
    return chat


def _as_part(block: dict) -> dict:
    if block["type"] == "text":
        return {"type": "text", "text": block["text"]}
    source = block["source"]
    return {"type": "image_url", "image_url": {"url": source.get("url") or data_url(source["media_type"], source["data"])}}


def _read_tool(tool: object, path: str) -> dict:
    check(tool, path, _TOOL, ("name", "input_schema"))
    fields: dict = tool  # type: ignore[assignment]
    need(_NAME.fullmatch(fields["name"]), "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'", f"{path}.name")
    check_schema(fields["input_schema"], f"{path}.input_schema")
    if fields.get("strict"):
        check_closed(fields["input_schema"], f"{path}.input_schema", all_required=False)
    return {"type": "function", "function": {"name": fields["name"], "parameters": fields["input_schema"]}}


def _read_choice(body: dict, names: list[str]) -> str | dict | None:
    need(len(names) == len(set(names)), "Tool names must be unique.", "tools")
    choice = body.get("tool_choice")
    if choice is None:
        return None
    need(names, "tool_choice may only be specified while providing tools.", "tool_choice")
    kind = choice.get("type")
    one_of(kind, ("auto", "any", "tool", "none"), "tool_choice.type")
    known = {"type": TEXT, **({"name": TEXT} if kind == "tool" else {}), **({"disable_parallel_tool_use": FLAG} if kind != "none" else {})}
    check(choice, "tool_choice", known, ("name",) if kind == "tool" else ())
    need(kind != "tool" or choice.get("name") in names, f"Tool {choice.get('name')!r} not found in provided tools", "tool_choice.name")
    if kind == "tool":
        return {"type": "function", "function": {"name": choice["name"]}}
    return {"auto": "auto", "any": "required", "none": "none"}[kind]


def _check_thinking(body: dict) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type")
    one_of(kind, ("enabled", "disabled", "adaptive", "between_tools"), "thinking.type")
    known: Fields = {"type": TEXT, "display": TEXT, **({"budget_tokens": WHOLE} if kind == "enabled" else {})}
    check(thinking, "thinking", known, ("budget_tokens",) if kind == "enabled" else ())
    if kind == "enabled":
        need(thinking["budget_tokens"] >= 1024, "Input should be greater than or equal to 1024", "thinking.budget_tokens")
        need(body["max_tokens"] > thinking["budget_tokens"], "`max_tokens` must be greater than `thinking.budget_tokens`", "max_tokens")
        forced = body.get("tool_choice", {}).get("type") in ("any", "tool")
        need(not forced, "Thinking may not be enabled when tool_choice forces tool use.", "tool_choice")
        need(body.get("temperature", 1) == 1, "`temperature` may only be set to 1 when thinking is enabled.", "temperature")


def _read_format(config: dict) -> dict | None:
    check(config, "output_config", {"effort": TEXT, "format": OBJECT})
    one_of(config.get("effort", "high"), ("low", "medium", "high", "xhigh", "max"), "output_config.effort")
    form = config.get("format")
    if form is None:
        return None
    check(form, "output_config.format", {"type": TEXT, "schema": OBJECT}, ("type", "schema"))
    one_of(form["type"], ("json_schema",), "output_config.format.type")
    check_closed(form["schema"], "output_config.format.schema", all_required=False)
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": form["schema"]}}


# --- what it answers ----------------------------------------------------------------------------------------------------------------


def _usage(answers: Answers) -> dict:
    return {
        "input_tokens": answers.prompt_tokens - answers.cached_tokens, "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": answers.cached_tokens, "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
        "output_tokens": answers.completion_tokens, "output_tokens_details": {"thinking_tokens": answers.reasoning_tokens},
        "service_tier": "standard",
    }  # fmt: skip


def _head(identity: Identity) -> dict:
    return {"id": f"msg_{identity.id}", "type": "message", "role": "assistant", "model": identity.model}


def _blocks(answer: Answer) -> list[dict]:
    blocks: list[dict] = []
    if answer.reasoning:
        thought = "".join(answer.reasoning)
        blocks.append({"type": "thinking", "thinking": thought, "signature": sign(VENDOR, thought)})
    if answer.content or not answer.calls:
        blocks.append({"type": "text", "text": "".join(answer.content), "citations": None})
    for call in answer.calls:
        given = "".join(call.fragments)
        blocks.append({"type": "tool_use", "id": call.id.replace("call_", "toolu_"), "name": call.name, "input": _object(given)})
    return blocks


def _object(text: str) -> dict:
    """Arguments that were cut short are none."""
    try:
        return json.loads(text)
    except ValueError:
        return {}


def plain(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> bytes:
    answer = answers.choices[0]
    fields = {**_head(identity), "content": _blocks(answer), "stop_reason": _STOPS[answer.finish_reason], "stop_sequence": None}
    if behaviour.pad_bytes:
        fields["content"].append({"type": "text", "text": PADDING, "citations": None})
    if behaviour.usage != "none":
        fields["usage"] = _usage(answers)
    return encode(fields)


def _event(fields: dict, tokens: int = 0) -> Piece:
    return Piece(b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), encode(fields)), tokens)


def stream(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> Iterator[Piece]:
    answer, usage = answers.choices[0], _usage(answers)
    begun = {**_head(identity), "content": [], "stop_reason": None, "stop_sequence": None, "usage": {**usage, "output_tokens": 1}}
    yield _event({"type": "message_start", "message": begun})
    for index, block in enumerate(_blocks(answer)):
        kind = block["type"]
        opened = {"thinking": {"thinking": "", "signature": ""}, "text": {"text": ""}, "tool_use": {"input": {}}}[kind]
        yield _event({"type": "content_block_start", "index": index, "content_block": {**block, **opened}})
        if not index:
            yield _event({"type": "ping"})
        for delta, tokens in _deltas(kind, block, answer, index):
            yield _event({"type": "content_block_delta", "index": index, "delta": delta}, tokens)
        yield _event({"type": "content_block_stop", "index": index})
    ended = {"stop_reason": _STOPS[answer.finish_reason], "stop_sequence": None}
    yield _event({"type": "message_delta", "delta": ended, "usage": usage if behaviour.usage != "none" else {"output_tokens": 0}})
    yield _event({"type": "message_stop"})


def _deltas(kind: str, block: dict, answer: Answer, index: int) -> Iterator[tuple[dict, int]]:
    if kind == "thinking":
        for token in answer.reasoning:
            yield {"type": "thinking_delta", "thinking": token}, 1
        yield {"type": "signature_delta", "signature": block["signature"]}, 0
    elif kind == "text":
        for token in answer.content:
            yield {"type": "text_delta", "text": token}, 1
    else:
        call = answer.calls[index - len(_blocks(answer))]
        yield {"type": "input_json_delta", "partial_json": ""}, 0
        for fragment in call.fragments:
            yield {"type": "input_json_delta", "partial_json": fragment}, 1


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    kind = _ERRORS.get(status, "invalid_request_error" if status < 500 else "api_error")
    details = {} if code is None else {"details": {"error_code": code}}
    return encode({"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_sim"})


def error_event() -> bytes:
    return b"event: error\ndata: %b\n\n" % error(500, "The simulated provider failed in the middle of its answer, as asked.")
