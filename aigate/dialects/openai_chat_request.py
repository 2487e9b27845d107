"""Requests of OpenAI chat: the narrow look at a call, the neutral form both ways, and the fast lane's edited pairs. Pure.

Both lanes end in `_finish`, so what a row's quirks change on the wire is written once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from aigate.core.call import Call
from aigate.core.edits import Edit, apply_to_pairs
from aigate.core.neutral import Bag, Message, Request, Tool
from aigate.core.params import GATEWAY_FIELDS, MAX_ASKED_TOKENS, MAX_OUTPUT_TOKENS
from aigate.core.target import Quirks, Target
from aigate.dialects.body import check_fields, read_fallbacks, read_pairs, read_tools, typed, wrong
from aigate.dialects.dialect import Head
from aigate.dialects.openai_chat_message import NAME, read_message, write_message
from aigate.dialects.proof import MARK
from aigate.errors import ClientError

PARAMS: Mapping[str, str] = {"max_tokens": MAX_OUTPUT_TOKENS, "max_completion_tokens": MAX_OUTPUT_TOKENS}
OWN_KEYS: Mapping[str, str] = {MAX_OUTPUT_TOKENS: "max_tokens"}  # which of several spellings is the dialect's own
_OTHER_KEYS: Mapping[str, str] = {MAX_OUTPUT_TOKENS: "max_completion_tokens"}
MAX_MODELS = 16
MAX_CHOICES = 128
COUNT = f"a whole number from 1 to {MAX_ASKED_TOKENS}"

ACTED_ON = frozenset(
    {
        "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "reasoning_effort", "thinking",
        "fallbacks",
    }
)  # fmt: skip
_NOT_PARAMS = GATEWAY_FIELDS | {"model", "messages", "tools", "stream"}


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Thinking(msgspec.Struct):
    type: str | None = None
    budget_tokens: Annotated[int, Meta(ge=0)] | None = None


def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind).decode


_models = _decoder(str | Annotated[list[str], Meta(min_length=1, max_length=MAX_MODELS)] | None)
_flag = _decoder(bool | None)
_count = _decoder(Annotated[int, Meta(ge=1, le=MAX_ASKED_TOKENS)] | None)
_choices = _decoder(Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None)
_string = _decoder(str | None)
_stream_options = _decoder(_StreamOptions | None)
_thinking = _decoder(_Thinking | None)
_MARK = MARK.encode()
_decode = msgspec.json.decode
_encode = msgspec.json.encode


# --- the narrow look ------------------------------------------------------------------------------------------------------


def read_models(pairs: Mapping[str, Raw]) -> tuple[str, ...]:
    """The models asked for, in order; () when none is named."""
    raw = pairs.get("model")
    return () if raw is None else _read_models(bytes(raw))


@lru_cache(1024)  # clients name few models
def _read_models(text: bytes) -> tuple[str, ...]:
    asked = typed({"model": Raw(text)}, "model", _models, f"a string or an array of 1 to {MAX_MODELS} strings")
    if asked is None:
        return ()
    models = (asked,) if isinstance(asked, str) else tuple(asked)  # type: ignore[arg-type]
    if "" in models:
        raise ClientError("model must not be an empty string; name one as provider/model", param="model")
    return models


def read_call(body: bytes, endpoint: str, head: Head) -> Call:
    pairs = read_pairs(body, ACTED_ON)
    messages = pairs.get("messages")
    if messages is None:
        raise ClientError("messages is missing: send an array of messages", param="messages")
    text = memoryview(messages)
    if text[0] != 0x5B or (text.nbytes < 16 and not _decode(messages)):  # 0x5B: "["
        raise wrong("messages", "an array of at least one message", messages)
    call = Call(NAME, endpoint, pairs, len(body), read_models(pairs), holds_proofs=_MARK in body)
    read_options(call)
    return call


def read_options(call: Call) -> None:
    """Everything but the prompt that is acted on, from the call's pairs."""
    pairs = call.pairs
    if "stream" in pairs:
        call.is_stream = bool(typed(pairs, "stream", _flag, "true or false"))
    if "stream_options" in pairs:
        options = typed(pairs, "stream_options", _stream_options, "an object whose include_usage is true or false")
        call.include_usage = None if options is None else options.include_usage  # type: ignore[attr-defined]
    if "max_tokens" in pairs or "max_completion_tokens" in pairs:
        call.max_output_tokens = _read_max_output_tokens(pairs)
    if "n" in pairs:
        call.n = typed(pairs, "n", _choices, f"a whole number from 1 to {MAX_CHOICES}") or 1  # type: ignore[assignment]
    if "reasoning_effort" in pairs:
        call.effort = typed(pairs, "reasoning_effort", _string, "a string")  # type: ignore[assignment]
    if "thinking" in pairs:
        thinking = typed(pairs, "thinking", _thinking, "an object with a type (string) and budget_tokens (a whole number from 0)")
        if thinking is not None:
            call.thinking_budget = 0 if thinking.type == "disabled" else thinking.budget_tokens  # type: ignore[attr-defined]
    read_fallbacks(call)


def _read_max_output_tokens(pairs: dict[str, Raw]) -> int | None:
    """One parameter under two keys. Given both, the smaller holds and the other is taken out of `pairs`."""
    if "max_completion_tokens" not in pairs:
        return typed(pairs, "max_tokens", _count, COUNT)  # type: ignore[return-value]
    new = typed(pairs, "max_completion_tokens", _count, COUNT)
    if "max_tokens" not in pairs:
        return new  # type: ignore[return-value]
    old = typed(pairs, "max_tokens", _count, COUNT)
    keeps_old = new is None or (old is not None and old < new)  # type: ignore[operator]
    del pairs["max_completion_tokens" if keeps_old else "max_tokens"]
    return old if keeps_old else new  # type: ignore[return-value]


# --- the fast lane --------------------------------------------------------------------------------------------------------


def edit_pairs(call: Call, edits: Sequence[Edit], target: Target) -> bytes:
    keys = _OTHER_KEYS if "max_completion_tokens" in call.pairs else OWN_KEYS
    return _finish(apply_to_pairs(call.pairs, edits, PARAMS, keys), target, call.is_stream)


def _finish(pairs: dict[str, Any], target: Target, is_stream: bool) -> bytes:
    """What every request needs on this target's wire: its model name, usage in streams, and the row's quirks of messages and schemas."""
    quirks = target.quirks
    pairs["model"] = target.upstream_model
    if is_stream:
        _set_stream_usage(pairs, quirks.stream_usage)
    if quirks.history_reasoning != "keep" or quirks.message_fields_dropped:
        pairs["messages"] = _mend_messages(pairs["messages"], quirks)
    if quirks.schema_keys_dropped:
        _mend_schemas(pairs, quirks.schema_keys_dropped)
    return _encode(pairs)


def _set_stream_usage(pairs: dict[str, Any], stream_usage: str) -> None:
    given = pairs.get("stream_options")
    options = {} if given is None else _decode(given) or {}
    if stream_usage == "ask":
        options["include_usage"] = True
    else:
        options.pop("include_usage", None)
    if options:
        pairs["stream_options"] = options
    else:
        pairs.pop("stream_options", None)


def _has_any_key(raw: Raw, keys: frozenset[str]) -> bool:
    """Whether the text may hold one of `keys`; spelt with escapes counts as may."""
    text = bytes(raw)
    return b"\\u00" in text or any(f'"{key}"'.encode() in text for key in keys)


_REASONING_KEYS = frozenset({"reasoning_content", "reasoning"})


def _mend_messages(raw: Raw, quirks: Quirks) -> Any:
    """Messages without the keys the provider refuses, and earlier reasoning as it wants it."""
    history = quirks.history_reasoning
    keys = quirks.message_fields_dropped if history == "keep" else quirks.message_fields_dropped | _REASONING_KEYS
    if not _has_any_key(raw, keys):
        return raw
    messages = _decode(raw)
    for message in messages:
        if type(message) is not dict:
            continue
        for key in quirks.message_fields_dropped:
            message.pop(key, None)
        if history != "keep" and message.get("role") == "assistant":
            _mend_reasoning(message, history)
    return messages


def _mend_reasoning(message: Bag, history: str) -> None:
    found = [message.pop(key, None) for key in ("reasoning_content", "reasoning")]
    text = next((value for value in found if isinstance(value, str) and value), None)
    if text is None or history == "drop":
        return
    if history == "reasoning":
        message["reasoning"] = text
    elif history == "parts":
        content = message.get("content")
        rest = content if type(content) is list else [{"type": "text", "text": content}] if content else []
        message["content"] = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]}, *rest]


def _mend_schemas(pairs: dict[str, Any], keys: frozenset[str]) -> None:
    """The JSON schemas of tools and of the reply format without `keys` at their top level."""
    for name in ("tools", "response_format"):
        raw = pairs.get(name)
        if raw is None or not _has_any_key(raw, keys):
            continue
        value = _decode(raw)
        for holder in value if type(value) is list else [value]:
            inside = holder.get("function" if name == "tools" else "json_schema") if type(holder) is dict else None
            schema = inside.get("parameters" if name == "tools" else "schema") if type(inside) is dict else None
            if type(schema) is dict:
                for key in keys:
                    schema.pop(key, None)
        pairs[name] = value


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_request(call: Call) -> Request:
    pairs = call.pairs
    messages = _decode(pairs["messages"])
    for place, message in enumerate(messages):
        if type(message) is not dict or not isinstance(message.get("role"), str):
            raise ClientError(f"messages[{place}] must be an object with a role", param="messages")
    request = Request(
        model=call.models[0] if call.models else "",
        messages=[_read_message(message, place) for place, message in enumerate(messages)],
        is_stream=call.is_stream,
        dialect=NAME,
    )
    bag: Bag = {}
    for key, raw in pairs.items():
        if key not in _NOT_PARAMS:
            name = PARAMS.get(key, key)
            request.params[name] = raw
            if OWN_KEYS.get(name, key) != key:
                request.spelling[name] = key
    if "stream" in pairs and not call.is_stream:
        bag["stream"] = pairs["stream"]
    if "response_format" in pairs:
        _check_format(pairs["response_format"])
    if "tools" in pairs:
        request.tools = read_tools(pairs["tools"], _read_tool)
        if request.tools is None:
            bag["tools"] = pairs["tools"]
    if bag:
        request.bags[NAME] = bag
    return request


def _read_message(message: Bag, place: int) -> Message:
    path = f"messages[{place}]"
    if message["role"] == "tool":
        check_fields(message, {"tool_call_id": str}, path)
    content, calls = message.get("content"), message.get("tool_calls")
    if content is not None and not isinstance(content, str | list):
        raise ClientError(f"{path}.content must be a string or an array of parts", param=f"{path}.content")
    for at, part in enumerate(content if type(content) is list else ()):
        if type(part) is not dict or not isinstance(part.get("type"), str):
            raise ClientError(f"{path}.content[{at}] must be an object with a type", param=f"{path}.content[{at}]")
        check_fields(part, _NEEDED.get(part["type"], {}), f"{path}.content[{at}]")
    if calls is not None and type(calls) is not list:
        raise ClientError(f"{path}.tool_calls must be an array", param=f"{path}.tool_calls")
    for at, call in enumerate(calls or ()):
        if type(call) is not dict or not any(type(call.get(kind)) is dict for kind in ("function", "custom")):
            raise ClientError(f"{path}.tool_calls[{at}] must be an object with a function", param=f"{path}.tool_calls[{at}]")
    try:
        return read_message(message)
    except ClientError as error:
        raise ClientError(f"{path}.content.{error.param} must be a string", param=f"{path}.content.{error.param}") from None


_NEEDED: Mapping[str, Mapping[str, type]] = {  # part type → what it cannot be without
    "text": {"text": str}, "refusal": {"refusal": str}, "image_url": {"image_url": dict}, "input_audio": {"input_audio": dict}, "file": {"file": dict},
    "video_url": {"video_url": dict},
}  # fmt: skip


def _check_format(raw: Raw) -> None:
    form = _decode(raw)
    if form is not None and (type(form) is not dict or not isinstance(form.get("type"), str)):
        raise wrong("response_format", "an object with a type", raw)
    if form is not None and form["type"] == "json_schema" and type(form.get("json_schema")) is not dict:
        raise ClientError("response_format.json_schema must be an object with a name and a schema", param="response_format.json_schema")


def _read_tool(tool: Bag, path: str) -> Tool:
    if "type" not in tool and "function" in tool:
        tool["type"] = None  # some leave it out
    kind = tool.get("type") or ("function" if "function" in tool else None)
    inside = tool.get(kind) if kind in ("function", "custom") else None
    if kind in ("function", "custom") and (type(inside) is not dict or not isinstance(inside.get("name"), str)):
        raise ClientError(f"{path}.{kind} must be an object with a name", param=f"{path}.{kind}")
    if type(inside) is not dict:
        return Tool(kind if isinstance(kind, str) else "", bag=tool)
    if tool["type"] is not None:
        del tool["type"]
    del tool[kind]
    schema = inside.pop("parameters", None) if kind == "function" else _read_grammar(inside.pop("format", None))
    read = Tool(
        kind,
        inside.pop("name", ""),
        inside.pop("description") if isinstance(inside.get("description"), str) else None,
        schema,
        inside.pop("strict") if isinstance(inside.get("strict"), bool) else None,
        tool,
    )
    if inside:
        tool[kind] = inside
    return read


def _read_grammar(given: Any) -> Any:
    """The format of a custom tool in its neutral, flat shape; only this wire nests it."""
    nested = given.get("grammar") if type(given) is dict else None
    return {"type": "grammar", **nested} if type(nested) is dict else given


def _write_grammar(given: Any) -> Any:
    is_flat = type(given) is dict and given.get("type") == "grammar" and "grammar" not in given
    return {"type": "grammar", "grammar": {key: given[key] for key in given if key != "type"}} if is_flat else given


def _write_tool(tool: Tool) -> Bag:
    kind = tool.kind
    if kind not in ("function", "custom"):
        return tool.bag
    inside: Bag = {"name": tool.name}
    schema = ("parameters", tool.parameters) if kind == "function" else ("format", _write_grammar(tool.parameters))
    for key, value in (("description", tool.description), schema, ("strict", tool.strict)):
        if value is not None:
            inside[key] = value
    more = tool.bag.get(kind)
    inside |= more if type(more) is dict else {}
    fields = {"type": kind, **tool.bag, kind: inside}
    return fields if fields["type"] is not None else {key: value for key, value in fields.items() if key != "type"}


def write_request(request: Request, target: Target) -> bytes:
    spelling = target.quirks.spelling
    pairs: dict[str, Any] = {"model": "", "messages": Raw(_encode([wire for message in request.messages for wire in write_message(message)]))}
    for name, raw in request.params.items():
        key = spelling.get(name) or request.spelling.get(name) or OWN_KEYS.get(name, name)
        pairs[key] = raw
    if request.tools is not None:
        taken = [tool for tool in request.tools if request.dialect == NAME or tool.kind in ("function", "custom")]
        if taken or request.dialect == NAME:
            pairs["tools"] = Raw(_encode([_write_tool(tool) for tool in taken]))
        else:  # without tools these two are refused
            pairs.pop("tool_choice", None)
            pairs.pop("parallel_tool_calls", None)
    if request.is_stream:
        pairs["stream"] = True
    pairs |= request.bags.get(NAME, {})
    return _finish(pairs, target, request.is_stream)
