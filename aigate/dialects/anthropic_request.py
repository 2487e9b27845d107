"""Requests of Anthropic Messages as clients send them: the narrow look at a call, the fast lane's pairs, and the neutral form. Pure.

A request may follow `anthropic-version` 2023-06-01 or 2026-10-21; what the later one refuses is refused here as the vendor does. Composite
parameters (thinking, output_config, tool_choice, …) are read into their neutral names and kept whole in the bag for the way back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from aigate.core.call import Call
from aigate.core.edits import Edit, apply_to_pairs
from aigate.core.neutral import Bag, Message, Request, Tool
from aigate.core.params import EFFORT, GATEWAY_FIELDS, MAX_ASKED_TOKENS, MAX_OUTPUT_TOKENS, THINKING
from aigate.core.target import Target
from aigate.dialects.anthropic_message import NAME, read_content, take_cache
from aigate.dialects.body import check_fields, is_array, read_fallbacks, read_pairs, typed, wrong
from aigate.dialects.dialect import Head
from aigate.dialects.openai_chat_request import read_models
from aigate.dialects.proof import MARK
from aigate.errors import ClientError

# Composite parameters have their inner place as key: plans and warnings for other dialects speak so.
PARAMS: Mapping[str, str] = {
    "max_tokens": MAX_OUTPUT_TOKENS,
    "stop_sequences": "stop",
    "output_config.effort": EFFORT,
    "output_config.format": "response_format",
    "metadata.user_id": "safety_identifier",
    "tool_choice.disable_parallel_tool_use": "parallel_tool_calls",
}
OWN_KEYS: Mapping[str, str] = {MAX_OUTPUT_TOKENS: "max_tokens", "stop": "stop_sequences"}
SIMPLE = ("temperature", "top_p", "top_k")  # the same key and shape on the wire and in the neutral form
ACTED_ON = frozenset({"model", "messages", "max_tokens", "stream", "system", "fallbacks"})

_NEEDED: Mapping[str, Mapping[str, type]] = {  # block type → what it cannot be without
    "text": {"text": str}, "image": {"source": dict}, "document": {"source": dict}, "tool_use": {"id": str, "name": str, "input": dict},
    "tool_result": {"tool_use_id": str}, "thinking": {"thinking": str}, "redacted_thinking": {"data": str},
}  # fmt: skip
COUNT = "count_tokens"  # the endpoint that answers without a model call
STRICT_SINCE = "2026-10-21"  # the version from which on sampling and a few blocks are refused
FORWARDED = (b"anthropic-version", b"anthropic-beta")
BARE_NAME = "claude-"  # what such a name without a provider means on this surface
_MARK = MARK.encode()
_VERSION = re.compile(r"20\d\d-\d\d-\d\d")

_flag = msgspec.json.Decoder(bool | None).decode
_count = msgspec.json.Decoder(Annotated[int, Meta(ge=0, le=MAX_ASKED_TOKENS)] | None).decode
_object = msgspec.json.Decoder(dict[str, Any] | None).decode
_decode = msgspec.json.decode
_encode = msgspec.json.encode


# --- the narrow look ------------------------------------------------------------------------------------------------------


def read_call(body: bytes, endpoint: str, head: Head) -> Call:
    pairs = read_pairs(body, ACTED_ON)
    messages = pairs.get("messages")
    if messages is None:
        raise ClientError("messages is missing: send an array of messages", param="messages")
    if not is_array(messages) or (memoryview(messages).nbytes < 16 and not _decode(messages)):
        raise wrong("messages", "an array of at least one message", messages)
    if _is_strict(head.headers.get(b"anthropic-version", b"").decode("latin-1")):
        for key in SIMPLE:
            if key in pairs:
                raise ClientError(f"{key} is not taken since anthropic-version {STRICT_SINCE}: leave it out", param=key)
        if b'"citations"' in body or b'"document"' in body:
            _check_blocks(_decode(messages))
    models = tuple(f"anthropic/{name}" if name.startswith(BARE_NAME) and "/" not in name else name for name in read_models(pairs))
    call = Call(NAME, endpoint, pairs, len(body), models)
    call.forward_headers = tuple((name, head.headers[name]) for name in FORWARDED if name in head.headers)
    if endpoint != COUNT:
        if pairs.get("max_tokens") is None:
            raise ClientError("max_tokens is missing: send the number of tokens to generate at most", param="max_tokens")
        call.max_output_tokens = typed(pairs, "max_tokens", _count, f"a whole number from 0 to {MAX_ASKED_TOKENS}")  # type: ignore[assignment]
    if "stream" in pairs:
        call.is_stream = bool(typed(pairs, "stream", _flag, "true or false"))
    read_fallbacks(call)
    call.holds_proofs = _MARK in body
    return call


def _is_strict(version: str) -> bool:
    """By the version asked for; none is the older one."""
    if version and not _VERSION.fullmatch(version):
        raise ClientError(f"anthropic-version {version[:40]!r} is none: send 2023-06-01 or {STRICT_SINCE}", param="anthropic-version")
    return version >= STRICT_SINCE


def _check_blocks(messages: Any) -> None:
    """Refuses the blocks that the newer version does. Whatever else is wrong with them is found later."""
    for place, message in enumerate(messages):
        role, content = (message.get("role"), message.get("content")) if type(message) is dict else (None, None)
        path = f"messages[{place}].content"
        for number, block in enumerate(content if type(content) is list else ()):
            if role == "assistant" and type(block) is dict and block.get("type") == "document":
                here = f"{path}[{number}]"
                raise ClientError(f"{here} is a document in an assistant message, not taken since {STRICT_SINCE}", param=here)
        if role == "user":
            _refuse_citations(content, path)


def _refuse_citations(content: Any, path: str) -> None:
    """A user's text has none, nor has what stands inside results."""
    for place, block in enumerate(content if type(content) is list else ()):
        here = f"{path}[{place}]"
        if type(block) is not dict:
            continue
        if block.get("type") == "text" and block.get("citations"):
            raise ClientError(f"{here}.citations: a user's text takes none since {STRICT_SINCE}", param=f"{here}.citations")
        if block.get("type") in ("search_result", "tool_result"):
            _refuse_citations(block.get("content"), f"{here}.content")


# --- the fast lane --------------------------------------------------------------------------------------------------------


def edit_pairs(call: Call, edits: Sequence[Edit], target: Target) -> bytes:
    pairs: dict[str, Any] = apply_to_pairs(call.pairs, edits, PARAMS, OWN_KEYS)
    if target.names_model:
        pairs["model"] = spelt(target.upstream_model)
    else:
        pairs.pop("model", None)
    return _encode(pairs)


def spelt(name: str) -> str:
    """The vendor spells versions with a dash; slugs say claude-opus-4.7 as well."""
    return name.replace(".", "-") if name.startswith(BARE_NAME) else name


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_request(call: Call) -> Request:
    pairs = call.pairs
    messages = _decode(pairs["messages"])
    bag: Bag = {}
    request = Request(call.models[0] if call.models else "", _read_system(pairs, bag), is_stream=call.is_stream, dialect=NAME)
    for place, message in enumerate(messages):
        request.messages.append(_read_message(message, f"messages[{place}]"))
    for key, raw in pairs.items():
        if key in OWN_KEYS.values() or key in SIMPLE:
            if bytes(raw) != b"null":
                request.params[PARAMS.get(key, key)] = raw
        elif key not in GATEWAY_FIELDS and key not in ("model", "messages", "system", "tools", "stream"):
            bag[key] = raw
    if "stream" in pairs and not call.is_stream:
        bag["stream"] = pairs["stream"]
    _read_composites(bag, request.params)
    tools = pairs.get("tools")
    if tools is not None:
        entries = _decode(tools)
        if type(entries) is not list or any(type(tool) is not dict for tool in entries):
            raise wrong("tools", "an array of tools", tools)
        for place, tool in enumerate(entries):
            if tool.get("type") in (None, "custom"):
                check_fields(tool, {"name": str}, f"tools[{place}]")
        request.tools = [_read_tool(tool) for tool in entries]
    request.bags[NAME] = bag
    return request


def _read_system(pairs: Mapping[str, Raw], bag: Bag) -> list[Message]:
    raw = pairs.get("system")
    if raw is None:
        return []
    content = _decode(raw)
    if content is None:
        bag["system"] = None
        return []
    _check_content(content, "system")
    parts, is_plain = read_content(content)
    return [Message("system", parts, is_plain=is_plain)]


def _check_content(content: object, path: str) -> None:
    if isinstance(content, str):
        return
    if type(content) is not list:
        raise ClientError(f"{path} must be a string or an array of content blocks", param=path)
    for place, block in enumerate(content):
        if type(block) is not dict or not isinstance(block.get("type"), str):
            raise ClientError(f"{path}[{place}] must be an object with a type", param=f"{path}[{place}]")
        check_fields(block, _NEEDED.get(block["type"], {}), f"{path}[{place}]")


def _read_message(message: Any, path: str) -> Message:
    role = message.get("role") if type(message) is dict else None
    if role not in ("user", "assistant", "system"):
        raise ClientError(f'{path} must be an object whose role is "user", "assistant" or "system"', param=path)
    content = message.pop("content", None)
    _check_content(content, f"{path}.content")
    del message["role"]
    parts, is_plain = read_content(content)
    return Message(role, parts, is_plain=is_plain, bag=message)


def _read_tool(tool: Bag) -> Tool:
    if tool.get("type") not in (None, "custom") or not isinstance(tool.get("name"), str):
        kind = tool.get("type")
        return Tool(kind if isinstance(kind, str) else "", bag=tool)
    return Tool(
        "function",
        tool.pop("name"),
        tool.pop("description") if isinstance(tool.get("description"), str) else None,
        tool.pop("input_schema", None),
        tool.pop("strict") if isinstance(tool.get("strict"), bool) else None,
        tool,
        take_cache(tool),
    )


def _read_composites(bag: Bag, params: dict[str, Raw]) -> None:
    """What composite parameters say, under neutral names. Where one is not as it should be, its provider says so."""

    def put(name: str, value: object) -> None:
        params[name] = Raw(_encode(value))

    config = _fields(bag, "output_config")
    if isinstance(config.get("effort"), str):
        put(EFFORT, config["effort"])
    form = config.get("format") or _fields(bag, "output_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        schema = form.get("schema")
        put("response_format", {"type": "json_schema", "json_schema": {"name": "output", "schema": schema, "strict": is_closed(schema)}})
    thinking = _fields(bag, "thinking")
    kind = thinking.get("type")
    if kind == "enabled" and type(thinking.get("budget_tokens")) is not int:
        raise ClientError("thinking.budget_tokens must be a whole number where thinking.type is enabled", param="thinking.budget_tokens")
    if kind in ("enabled", "disabled"):
        put(THINKING, {key: thinking[key] for key in ("type", "budget_tokens") if type(thinking.get(key)) in (str, int)})
    elif kind in ("adaptive", "between_tools") and EFFORT not in params:
        put(EFFORT, "high" if kind == "adaptive" else "low")
    choice = _fields(bag, "tool_choice")
    wanted = {"auto": "auto", "any": "required", "none": "none"}.get(str(choice.get("type")))
    if choice.get("type") == "tool" and isinstance(choice.get("name"), str):
        put("tool_choice", {"type": "function", "function": {"name": choice["name"]}})
    elif wanted is not None:
        put("tool_choice", wanted)
    if choice.get("disable_parallel_tool_use") is True:
        put("parallel_tool_calls", False)
    user = _fields(bag, "metadata").get("user_id")
    if isinstance(user, str):
        put("safety_identifier", user)
    tier = {b'"auto"': "auto", b'"standard_only"': "default"}.get(bytes(bag.get("service_tier", b"")))
    if tier is not None:
        put("service_tier", tier)


def _fields(bag: Bag, key: str) -> dict[str, Any]:
    return typed(bag, key, _object, "an object") or {}  # type: ignore[return-value]


def is_closed(schema: object) -> bool:
    """Whether every object in a JSON schema lists all its properties as required and admits no other: what OpenAI calls strict."""
    if type(schema) is list:
        return all(map(is_closed, schema))
    if type(schema) is not dict:
        return True
    properties = schema.get("properties")
    required = schema.get("required")
    if type(properties) is dict:
        all_required = type(required) is list and all(name in required for name in properties)
        if schema.get("additionalProperties") is not False or (properties and not all_required):
            return False
    return all(map(is_closed, schema.values()))
