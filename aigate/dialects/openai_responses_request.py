"""Requests of OpenAI Responses: the narrow look at a call, the neutral form both ways, the fast lane's edited pairs, and losses. Pure.

Parameters that sit inside `reasoning` and `text` stand in a call's pairs under their path ("reasoning.effort"), so that edits, quirks and
warnings see them like any other. Nothing is stored at the provider, whose account all tenants share: `store` is always sent as false;
what is kept here is in openai_responses_kept.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw

from aigate.core.call import Call, Warning
from aigate.core.edits import Edit, apply_to_pairs
from aigate.core.neutral import Bag, Media, Message, Opaque, Part, Reasoning, Request, Text, Tool, ToolResult
from aigate.core.params import EFFORT, GATEWAY_FIELDS, MAX_ASKED_TOKENS, MAX_OUTPUT_TOKENS
from aigate.core.target import Target
from aigate.dialects.body import is_array, read_fallbacks, read_pairs, read_tools, typed, wrong
from aigate.dialects.dialect import Head
from aigate.dialects.openai_chat_request import read_models
from aigate.dialects.openai_responses_items import INSTRUCTIONS, NAME, ItemWriter, is_taken, objects, read_items
from aigate.dialects.proof import MARK
from aigate.errors import ClientError

_INSIDE = {"reasoning": ("effort",), "text": ("format", "verbosity")}  # object → what of it is a parameter of its own
PARAMS: Mapping[str, str] = {"reasoning.effort": EFFORT, "text.format": "response_format", "text.verbosity": "verbosity"}
OWN_KEYS: Mapping[str, str] = {name: key for key, name in PARAMS.items()}
# Parameters of the neutral vocabulary that this format has.
SHARED = frozenset(
    {
        MAX_OUTPUT_TOKENS, "tool_choice", "parallel_tool_calls", "temperature", "top_p", "top_logprobs", "metadata", "user",
        "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention", "moderation",
        *OWN_KEYS,
    }
)  # fmt: skip
# Of other formats: what we answer for ourselves, or what changes nothing of the answer.
_QUIET = frozenset({"stream_options", "store", "thinking", "logprobs"})
_SAID_ANYWAY = frozenset(
    {
        ("n", b"1"), ("modalities", b'["text"]'), ("presence_penalty", b"0"), ("frequency_penalty", b"0"), ("presence_penalty", b"0.0"),
        ("frequency_penalty", b"0.0"), ("logit_bias", b"{}"), ("functions", b"[]"), ("stop", b"[]"),
    }
)  # fmt: skip
# Its own, and no other format's. The rest of the keys we know nothing of.
_OWN = frozenset(
    {
        "background", "background_options", "conversation", "include", "previous_response_id", "prompt", "truncation",
        "context_management", "max_tool_calls", "access_programs", "image", "store", "stream_options", "reasoning", "text",
    }
)  # fmt: skip
_STATE = {  # fields that name what only the vendor keeps → what to send instead
    "conversation": "go on with `previous_response_id`, or send the earlier items in `input`",
    "prompt": "send the prompt's text in `instructions` or `input`",
}
ACTED_ON = frozenset({"model", "input", "instructions", "stream", "reasoning", "text", "max_output_tokens", "background", "fallbacks", "previous_response_id", "store", *_STATE})
_NOT_PARAMS = GATEWAY_FIELDS | {"model", "input", "instructions", "tools", "stream"}
_SHOW_NO_REASONING = ("openai-chat", "openai-completions")
_ENCRYPTED = "reasoning.encrypted_content"
_LOGPROBS = "message.output_text.logprobs"
_MARK = MARK.encode()


def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind).decode


_flag = _decoder(bool | None)
_count = _decoder(Annotated[int, Meta(ge=1, le=MAX_ASKED_TOKENS)] | None)
_string = _decoder(str | None)
_object = _decoder(dict[str, Raw] | None)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


# --- the narrow look ------------------------------------------------------------------------------------------------------


def read_call(body: bytes, endpoint: str, head: Head) -> Call:
    pairs = read_pairs(body, ACTED_ON)
    _check_input(pairs)
    _check_state(pairs)
    call = Call(NAME, endpoint, pairs, len(body), read_models(pairs), holds_proofs=_MARK in bytes(pairs["input"]))
    if "stream" in pairs:
        call.is_stream = bool(typed(pairs, "stream", _flag, "true or false"))
    if "max_output_tokens" in pairs:
        call.max_output_tokens = typed(pairs, "max_output_tokens", _count, f"a whole number from 1 to {MAX_ASKED_TOKENS}")  # type: ignore[assignment]
    if "previous_response_id" in pairs:
        call.previous_response = typed(pairs, "previous_response_id", _string, "the id of an earlier response") or ""  # type: ignore[assignment]
    call.is_kept = "store" not in pairs or typed(pairs, "store", _flag, "true or false") is not False
    for key, inside in _INSIDE.items():
        if key in pairs:
            _unfold(pairs, key, inside)
    typed(pairs, "text.format", _object, "an object")
    if "reasoning.effort" in pairs:
        call.effort = typed(pairs, "reasoning.effort", _string, "a string")  # type: ignore[assignment]
    read_fallbacks(call)
    return call


def _check_input(pairs: Mapping[str, Raw]) -> None:
    given = pairs.get("input")
    if given is None:
        raise ClientError("input is missing: send a string or an array of items", param="input")
    if bytes(memoryview(given)[:1]) != b'"' and (not is_array(given) or (memoryview(given).nbytes < 16 and not _decode(given))):
        raise wrong("input", "a string or an array of at least one item", given)
    instructions = pairs.get("instructions")
    if instructions is not None and is_array(instructions):
        raise wrong("instructions", "a string", instructions)


def _check_state(pairs: Mapping[str, Raw]) -> None:
    for key, instead in _STATE.items():
        if key in pairs and _decode(pairs[key]) is not None:
            raise ClientError(f"{key} is not supported: {instead}", param=key, code="unsupported_parameter")
    if "background" in pairs and typed(pairs, "background", _flag, "true or false"):
        for key, unfit in (("stream", b"true"), ("store", b"false")):
            if bytes(pairs.get(key, b"")) == unfit:
                words = f"background: such a response is kept and asked for by its id, not with `{key}` {unfit.decode()}; leave `{key}` out"
                raise ClientError(words, param="background", code="unsupported_parameter")


def _unfold(pairs: dict[str, Raw], key: str, inside: Sequence[str]) -> None:
    fields = typed(pairs, key, _object, "an object")
    if not fields:
        return
    for name in inside:
        if name in fields:  # type: ignore[operator]
            pairs[f"{key}.{name}"] = fields.pop(name)  # type: ignore[attr-defined]
    if fields:
        pairs[key] = Raw(_encode(fields))
    else:
        del pairs[key]


# --- the wire -------------------------------------------------------------------------------------------------------------


def edit_pairs(call: Call, edits: Sequence[Edit], target: Target) -> bytes:
    pairs: dict[str, Any] = apply_to_pairs(call.pairs, edits, PARAMS, OWN_KEYS)
    return _finish(pairs, target)


def _finish(pairs: dict[str, Any], target: Target) -> bytes:
    """What every request needs on this wire: the model's name there, its nested objects, and all that makes it stateless."""
    pairs["model"] = target.upstream_model
    for key in PARAMS:
        if key in pairs:
            outer, _, name = key.partition(".")
            fields = pairs.get(outer)
            fields = (_object(fields) or {}) if isinstance(fields, Raw) else fields or {}
            fields[name] = pairs.pop(key)
            pairs[outer] = fields
    pairs["store"] = False
    pairs.pop("previous_response_id", None)  # its items are in the input
    if target.model.is_reasoning:  # else the next turn could not show the model its own thoughts
        include = pairs.get("include")
        include = (_decode(include) if isinstance(include, Raw) else include) or []
        if type(include) is list and _ENCRYPTED not in include:
            pairs["include"] = [*include, _ENCRYPTED]
    return _encode(pairs)


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_request(call: Call) -> Request:
    pairs = call.pairs
    given = _decode(pairs["input"])
    messages = [Message("user", [Text(given)])] if isinstance(given, str) else read_items(given)
    request = Request(call.models[0] if call.models else "", messages, is_stream=call.is_stream, dialect=NAME)
    bag: Bag = {}
    if "instructions" in pairs:
        instructions = typed(pairs, "instructions", _string, "a string")
        if instructions is None:
            bag["instructions"] = None
        else:
            messages.insert(0, Message("system", [Text(instructions)], bag={INSTRUCTIONS: True}))  # type: ignore[arg-type]
    if "stream" in pairs and not call.is_stream:
        bag["stream"] = pairs["stream"]
    for key, raw in pairs.items():
        if key in _OWN:
            bag[key] = raw
        elif key not in _NOT_PARAMS:
            name = PARAMS.get(key, key)
            request.params[name] = _RESHAPED[name][0](raw) if name in _RESHAPED else raw
    choice = request.params.get("tool_choice")
    if choice is not None and _names_own_tool(_decode(choice)):
        bag["tool_choice"] = request.params.pop("tool_choice")
    if "include" in bag and _LOGPROBS.encode() in bytes(bag["include"]):
        request.params["logprobs"] = Raw(b"true")
    if "tools" in pairs:
        request.tools = read_tools(pairs["tools"], _read_tool)
        if request.tools is None:
            bag["tools"] = pairs["tools"]
    if bag:
        request.bags[NAME] = bag
    return request


def _read_tool(tool: Bag, path: str) -> Tool:
    kind = tool.get("type")
    if kind not in ("function", "custom"):
        return Tool(kind if isinstance(kind, str) else "", bag=tool)
    if not isinstance(tool.get("name"), str):
        raise ClientError(f"{path}.name must be a string", param=f"{path}.name")
    key = "parameters" if kind == "function" else "format"
    return Tool(
        tool.pop("type"),
        tool.pop("name", None) or "",
        tool.pop("description") if isinstance(tool.get("description"), str) else None,
        tool.pop(key) if tool.get(key) is not None else None,
        tool.pop("strict") if isinstance(tool.get("strict"), bool) else None,
        tool,
    )


def _write_tool(tool: Tool, is_own: bool) -> Bag:
    """`is_own` False: what other formats leave out means something else here (an unsaid `strict` is true)."""
    if tool.kind not in ("function", "custom"):
        return tool.bag
    fields: Bag = {"type": tool.kind, "name": tool.name}
    if tool.description is not None:
        fields["description"] = tool.description
    if tool.kind == "custom":
        return fields | ({} if tool.parameters is None else {"format": tool.parameters}) | tool.bag
    if tool.parameters is not None or not is_own:
        fields["parameters"] = tool.parameters or {"type": "object", "properties": {}}
    if tool.strict is not None or not is_own:
        fields["strict"] = bool(tool.strict)
    return fields | tool.bag


def write_request(request: Request, target: Target) -> bytes:
    is_own = request.dialect == NAME
    writer = ItemWriter()
    pairs: dict[str, Any] = {"model": "", "input": writer.items}
    for message in request.messages:
        if message.bag.get(INSTRUCTIONS) is True:
            pairs["instructions"] = message.parts[0].text  # type: ignore[union-attr]
        else:
            writer.write_message(message)
    if request.tools is not None:
        pairs["tools"] = [_write_tool(tool, is_own) for tool in request.tools if is_own or tool.kind in ("function", "custom")]
    if not is_own and not pairs.get("tools", True):  # without tools a choice among them is refused
        del pairs["tools"]
        request.params.pop("tool_choice", None)
        request.params.pop("parallel_tool_calls", None)
    for name, raw in request.params.items():
        if name == "logprobs":
            if not is_own and bytes(raw) == b"true":
                pairs["include"] = [_LOGPROBS]
        elif is_own or name in SHARED:
            key = OWN_KEYS.get(name, name)
            pairs[key] = _RESHAPED[name][1](raw) if name in _RESHAPED else raw
    if not is_own and request.dialect not in _SHOW_NO_REASONING and _decode(request.params.get(EFFORT, b"null")) not in (None, "none"):
        pairs["reasoning"] = {"summary": "auto"}  # who asks to reason in other formats sees it
    if request.is_stream:
        pairs["stream"] = True
    pairs |= request.bags.get(NAME, {})
    return _finish(pairs, target)


# Both name their functions by nesting in OpenAI chat, the neutral shape, and flat here.


def _read_format(raw: Raw) -> Raw:
    fields = _decode(raw, type=dict[str, Raw] | None)
    if not fields or bytes(fields.get("type", b"")) != b'"json_schema"':
        return raw
    kind = fields.pop("type")
    return Raw(_encode({"type": kind, "json_schema": fields}))


def _write_format(raw: Raw) -> Raw:
    fields = _decode(raw, type=dict[str, Raw] | None)
    if not fields or bytes(fields.get("json_schema", b""))[:1] != b"{":
        return raw
    return Raw(_encode({"type": "json_schema", "name": "response", **_decode(fields["json_schema"], type=dict[str, Raw])}))


def _nest(choice: Any) -> Any:
    kind = choice.pop("type", None) if type(choice) is dict else None
    if kind == "allowed_tools":
        choice["tools"] = [_nest(tool) for tool in objects(choice.get("tools"))]
    elif kind not in ("function", "custom"):
        return choice if kind is None else {"type": kind, **choice}
    return {"type": kind, kind: choice}


def _names_own_tool(choice: Any) -> bool:
    """Whether a tool choice forces a tool that only this format has."""
    return type(choice) is dict and choice.get("type") not in ("function", "custom", "allowed_tools")


def _flatten(choice: Any) -> Any:
    kind = choice.get("type") if type(choice) is dict else None
    inside = choice.get(kind) if isinstance(kind, str) else None
    if type(inside) is not dict:
        return choice
    if kind == "allowed_tools":
        inside["tools"] = [_flatten(tool) for tool in objects(inside.get("tools"))]
    return {"type": kind, **inside}


_RESHAPED = {
    "response_format": (_read_format, _write_format),
    "tool_choice": (lambda raw: Raw(_encode(_nest(_decode(raw)))), lambda raw: Raw(_encode(_flatten(_decode(raw))))),
}


# --- losses ---------------------------------------------------------------------------------------------------------------


def lost(request: Request, target: Target) -> list[Warning]:
    """What a request says and this format cannot: foreign ones, and its own of a conversation that other providers were part of."""
    warnings: list[Warning] = []
    for place, message in enumerate(request.messages):
        path = f"messages[{place}]"
        if message.name is not None and message.role != "function":
            warnings.append(Warning("dropped", f"{path}.name", "this format names no speakers"))
        _walk(message.parts, f"{path}.content", request.dialect, warnings)
    for place, tool in enumerate(request.tools or ()):
        if tool.kind not in ("function", "custom") and request.dialect != NAME:
            warnings.append(Warning("dropped", f"tools[{place}]", f"{tool.kind} is a tool of the other provider"))
    if request.dialect == NAME:
        return warnings
    for name, raw in request.params.items():
        if name not in SHARED and name not in _QUIET and (name, bytes(raw)) not in _SAID_ANYWAY and bytes(raw) != b"null":
            warnings.append(Warning("dropped", name, "this format has no such parameter"))
    return warnings


def _walk(parts: Sequence[Part], path: str, dialect: str, warnings: list[Warning]) -> None:
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        if type(part) is Opaque and part.dialect != NAME:
            warnings.append(Warning("dropped", here, f"{part.kind or 'this part'} cannot be said in this format"))
        elif type(part) is Media and part.kind not in ("image", "document"):
            warnings.append(Warning("dropped", here, f"this format takes no {part.kind}"))
        elif type(part) is Media and part.file_id is not None and dialect != NAME:
            warnings.append(Warning("dropped", here, "a file of another provider"))
        elif type(part) is Reasoning and not is_taken(part):
            warnings.append(Warning("dropped", here, "reasoning of another provider"))
        elif type(part) is ToolResult:
            if part.is_error:
                warnings.append(Warning("dropped", f"{here}.is_error", "this format marks no failed results"))
            _walk(part.parts, f"{here}.content", dialect, warnings)
