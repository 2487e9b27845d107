"""Requests to providers that speak Anthropic Messages, from the neutral form of any caller; and what of it they cannot be told. Pure.

`lost` and `write_request` walk the same plan, so that what the one leaves out the other has named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.call import Warning
from aigate.core.neutral import Bag, Media, Message, Opaque, Part, Reasoning, Request, Text, Tool, ToolCall, ToolResult
from aigate.core.params import EFFORT, MAX_OUTPUT_TOKENS, THINKING
from aigate.core.target import Target
from aigate.dialects.anthropic_message import MEDIA_KINDS, NAME, put_cache, write_blocks, write_content
from aigate.dialects.anthropic_request import OWN_KEYS, SIMPLE, spelt
from aigate.dialects.anthropic_schema import lowered
from aigate.dialects.body import value_of

MAX_INVENTED_TOKENS = 32_768  # of output, where the caller set no bound: this format must have one
MIN_BUDGET_TOKENS = 1024
BUDGETS = {"minimal": 1024, "low": 1024, "medium": 8192, "high": 24_576, "xhigh": 32_768, "max": 32_768}  # of models that take only budgets
_SAID = frozenset(
    {
        *SIMPLE, *OWN_KEYS, EFFORT, THINKING, "tool_choice", "parallel_tool_calls", "response_format", "safety_identifier", "user",
        "stream_options", "service_tier",
    }
)  # fmt: skip
_TIERS = {"auto": "auto", "default": "standard_only"}
_UNSAID_DEFAULTS = {
    "n": b"1", "presence_penalty": b"0", "frequency_penalty": b"0", "logprobs": b"false", "store": b"false", "modalities": b'["text"]',
}  # fmt: skip

_encode = msgspec.json.encode
_decode = msgspec.json.decode


# --- what cannot be said --------------------------------------------------------------------------------------------------


def lost(request: Request, target: Target) -> list[Warning]:
    warnings: list[Warning] = []
    lead = _leading(request.messages)
    for place, message in enumerate(request.messages):
        if message.role in ("system", "developer") and place >= lead and request.dialect != NAME:
            warnings.append(Warning("moved", f"messages[{place}]", "instructions stand before all messages here"))
        _walk(message.parts, f"messages[{place}].content", request.dialect, warnings)
    for place, tool in enumerate(request.tools or ()):
        if tool.kind == "custom":
            warnings.append(Warning("dropped", f"tools[{place}].format", "tools take JSON objects only here"))
        elif tool.kind != "function" and request.dialect != NAME:
            warnings.append(Warning("dropped", f"tools[{place}]", f"{tool.kind} is a tool of another provider"))
    if request.dialect != NAME:
        _lose_params(request, target, warnings)
    return warnings


def _walk(parts: Sequence[Part], path: str, dialect: str, warnings: list[Warning]) -> None:
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        kind = type(part)
        if kind is Opaque and part.dialect != NAME:  # type: ignore[union-attr]
            warnings.append(Warning("dropped", here, f"{part.kind or 'this part'} cannot be said in this format"))  # type: ignore[union-attr]
        elif kind is Reasoning and part.origin != NAME:  # type: ignore[union-attr]
            warnings.append(Warning("dropped", here, "reasoning of another provider"))
        elif kind is Media and part.kind not in MEDIA_KINDS:  # type: ignore[union-attr]
            warnings.append(Warning("dropped", here, f"{part.kind} is not taken in this format"))  # type: ignore[union-attr]
        elif kind is Media and part.file_id is not None and dialect != NAME:  # type: ignore[union-attr]
            warnings.append(Warning("dropped", here, "a file of another provider"))
        elif kind is ToolCall and part.kind != "custom" and not _is_object(part.arguments):  # type: ignore[union-attr]
            warnings.append(Warning("dropped", f"{here}.arguments", "not a JSON object"))
        elif kind is ToolResult:
            _walk(part.parts, f"{here}.content", dialect, warnings)  # type: ignore[union-attr]


def _is_object(text: str) -> bool:
    try:
        return isinstance(_decode(text), dict)
    except (msgspec.DecodeError, RecursionError):
        return not text.strip()


def _lose_params(request: Request, target: Target, warnings: list[Warning]) -> None:
    params = request.params
    for name, raw in params.items():
        if name not in _SAID and name not in target.quirks.extra and bytes(raw) not in (b"null", _UNSAID_DEFAULTS.get(name), b"{}", b"0.0"):
            warnings.append(Warning("dropped", request.spelling.get(name, name), "this format has no such parameter"))
    form = value_of(params, "response_format")
    if _told_format(form, target):
        warnings.append(Warning("emulated", "response_format", "asked for in the instructions, as the model cannot be bound to it"))
    elif isinstance(form, dict) and form.get("type") == "json_schema" and (told := _schema(form)[1]):
        what = ", ".join(sorted(set(told)))
        warnings.append(Warning("emulated", "response_format", f"told in the schema's descriptions rather than enforced: {what}"))
    tier = value_of(params, "service_tier")
    if tier is not None and str(tier) not in _TIERS:
        warnings.append(Warning("dropped", "service_tier", "this format has auto and default", str(tier)))
    choice = value_of(params, "tool_choice")
    if _is_forced(choice) and not target.quirks.forces_tools:
        warnings.append(Warning("clamped", "tool_choice", "the model cannot be made to call a tool", "required", "auto"))
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        warnings.append(Warning("dropped", "tool_choice.allowed_tools", "this format has no choice among tools"))
    if _thinks_by_budget(request, target) and _thinking(request, target) is None:
        warnings.append(Warning("dropped", EFFORT, "the model cannot think on this turn"))
    effort = value_of(params, EFFORT)
    if target.quirks.thinking != "adaptive" and THINKING not in params and effort not in (None, "none", *BUDGETS):
        warnings.append(Warning("dropped", request.spelling.get(EFFORT, EFFORT), "not a degree of reasoning that this format knows", str(effort)))


# --- the request ----------------------------------------------------------------------------------------------------------


def write_request(request: Request, target: Target) -> bytes:
    is_own = request.dialect == NAME
    told = "" if is_own else _told_format(value_of(request.params, "response_format"), target)
    instructions = [*request.messages, Message("system", [Text(told)])] if told else request.messages
    system, messages = _write_messages(instructions, is_own)
    pairs: dict[str, Any] = {"model": spelt(target.upstream_model)} if target.names_model else {}
    pairs["messages"] = messages
    if system:
        pairs["system"] = system
    params = request.params
    for name in (*SIMPLE, *target.quirks.extra):
        if name in params:
            pairs[name] = params[name]
    if "stop" in params:
        stop = value_of(params, "stop")
        stops = [stop] if isinstance(stop, str) else stop if type(stop) is list else []
        if stops or is_own:
            pairs["stop_sequences"] = stops
    if request.tools is not None:
        tools = [_write_tool(tool) for tool in request.tools if tool.kind in ("function", "custom") or is_own]
        if tools or is_own:
            pairs["tools"] = tools
    pairs["max_tokens"] = _max_tokens(request, target)
    if request.is_stream:
        pairs["stream"] = True
    if is_own:
        pairs |= request.bags.get(NAME, {})
    else:
        _write_composites(pairs, request, target)
    return _encode(pairs)


def _told_format(form: object, target: Target) -> str:
    """What the instructions say of the format of the answer, where the format itself has no other way to."""
    kind = form.get("type") if isinstance(form, dict) else None
    if kind == "json_object":
        return "Answer with one JSON object and nothing else: no words around it and no code fence."
    if kind != "json_schema":
        return ""
    inside = form.get("json_schema")  # type: ignore[union-attr]
    schema = inside.get("schema") if type(inside) is dict else None
    if schema is not None and target.quirks.takes_schema:
        return ""
    said = f", valid against this JSON Schema:\n{_encode(schema).decode()}" if schema is not None else "."
    return f"Answer with JSON and nothing else, no words around it and no code fence{said}"


def _schema(form: Bag) -> tuple[Any, list[str]]:
    """The schema that binds the answer, as it is taken here, and what of it is only told."""
    inside = form.get("json_schema")
    return lowered(inside.get("schema") if type(inside) is dict else None)


def _max_tokens(request: Request, target: Target) -> object:
    asked = request.params.get(MAX_OUTPUT_TOKENS)
    if asked is not None and bytes(asked) != b"null":
        return asked
    return min(target.model.max_output_tokens or 8192, MAX_INVENTED_TOKENS)


def _leading(messages: Sequence[Message]) -> int:
    """How many messages at the start are instructions."""
    return next((place for place, message in enumerate(messages) if message.role not in ("system", "developer")), len(messages))


def _write_messages(messages: Sequence[Message], is_own: bool) -> tuple[Any, list[Bag]]:
    """(system, messages). Later instructions keep their place where they were legal there, else they join the first ones."""
    lead = _leading(messages)
    instructions = list(messages[:lead])
    written: list[Bag] = []
    for message in messages[lead:]:
        role = message.role
        parts: Sequence[Part] = message.parts
        if role in ("system", "developer"):
            if not is_own:
                instructions.append(message)
                continue
        elif role == "function":
            parts = [ToolResult("", list(parts))]
        wire_role = role if role in ("assistant", "system") else "user"
        content = write_content(_portable(parts, is_own), message.is_plain)
        if not content:
            continue  # nothing is left of it, and an empty one is refused
        if role in ("tool", "function") and written and written[-1]["role"] == "user" and type(written[-1]["content"]) is list:
            if written[-1]["content"][0].get("type") == "tool_result":  # all results of a turn belong in one message
                written[-1]["content"] += content
                continue
        written.append({"role": wire_role, "content": content, **message.bag})
    return _write_system(instructions), written


def _portable(parts: Sequence[Part], is_own: bool) -> Sequence[Part]:
    """Without what only another provider could read: its reasoning and its files."""
    return [
        part for part in parts
        if not (type(part) is Reasoning and part.origin != NAME) and (is_own or type(part) is not Media or part.file_id is None)
    ]  # fmt: skip


def _write_system(instructions: Sequence[Message]) -> Any:
    if not instructions:
        return None
    parts = [part for message in instructions for part in message.parts]
    if len(instructions) == 1 and not instructions[0].is_plain:
        return write_blocks(parts)
    if all(type(part) is Text and part.cache is None and not part.bag for part in parts):
        return "\n\n".join(part.text for part in parts)  # type: ignore[union-attr]
    return write_blocks(parts)


def _write_tool(tool: Tool) -> Bag:
    if tool.kind not in ("function", "custom"):
        return tool.bag
    if tool.kind == "custom":
        inside = tool.bag.get("custom") or tool.bag
        schema: Any = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
        return {"name": tool.name or inside.get("name", ""), "description": inside.get("description") or "", "input_schema": schema}
    fields: Bag = {"name": tool.name}
    if tool.description is not None:
        fields["description"] = tool.description
    fields["input_schema"] = {"type": "object", "properties": {}} if tool.parameters is None else _with_type(tool.parameters)
    if tool.strict is not None:
        fields["strict"] = tool.strict
    put_cache(fields, tool.cache)
    return fields | tool.bag


def _with_type(schema: Any) -> Any:
    return {"type": "object", **schema} if type(schema) is dict else schema


def _is_forced(choice: object) -> bool:
    return choice == "required" or (isinstance(choice, dict) and choice.get("type") in ("function", "custom"))


def _write_composites(pairs: dict[str, Any], request: Request, target: Target) -> None:
    params = request.params
    if pairs.get("tools"):
        choice = _write_tool_choice(params, target)
        if choice is not None:
            pairs["tool_choice"] = choice
    config: Bag = {}
    thinking = _thinking(request, target)
    if thinking is not None:
        pairs["thinking"] = thinking
    effort = value_of(params, EFFORT)
    if target.quirks.thinking == "adaptive" and effort not in (None, "none", "between_tools"):
        config["effort"] = effort
    form = value_of(params, "response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema" and not _told_format(form, target):
        config["format"] = {"type": "json_schema", "schema": _schema(form)[0]}
    if config:
        pairs["output_config"] = config
    user = value_of(params, "safety_identifier") or value_of(params, "user")
    if isinstance(user, str):
        pairs["metadata"] = {"user_id": user}
    tier = _TIERS.get(str(value_of(params, "service_tier")))
    if tier is not None:
        pairs["service_tier"] = tier


def _write_tool_choice(params: Mapping[str, Raw], target: Target) -> Bag | None:
    asked = value_of(params, "tool_choice")
    choice: Bag | None = None
    if _is_forced(asked) and not target.quirks.forces_tools:
        choice = {"type": "auto"}
    elif isinstance(asked, str):
        kind = {"auto": "auto", "required": "any", "none": "none"}.get(asked)
        choice = {"type": kind} if kind else None
    elif isinstance(asked, dict) and asked.get("type") in ("function", "custom"):
        inside = asked.get(asked["type"])
        choice = {"type": "tool", "name": (inside if type(inside) is dict else asked).get("name")}
    if value_of(params, "parallel_tool_calls") is False and (choice is None or choice["type"] != "none"):
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return choice


def _thinks_by_budget(request: Request, target: Target) -> bool:
    """Whether thinking was asked of a model that takes it as a number of tokens."""
    if target.quirks.thinking == "adaptive":
        return False
    mode = value_of(request.params, THINKING)
    if isinstance(mode, dict) and (mode.get("type") == "disabled" or "budget_tokens" in mode):
        return mode.get("type") == "enabled" and bool(mode["budget_tokens"])
    return value_of(request.params, EFFORT) in BUDGETS


def _thinking(request: Request, target: Target) -> Bag | None:
    """The `thinking` field; None to say nothing, which is also what is left where the model could not think on this turn."""
    effort = value_of(request.params, EFFORT)
    if target.quirks.thinking == "adaptive":
        if effort is None:
            return None
        kind = {"none": "disabled", "between_tools": "between_tools"}.get(effort, "adaptive")
        return {"type": kind, "display": "summarized"} if kind == "adaptive" else {"type": kind}
    if not _thinks_by_budget(request, target) or _is_forced(value_of(request.params, "tool_choice")) or _is_inside_turn(request):
        return None
    mode = value_of(request.params, THINKING)
    budget = mode["budget_tokens"] if isinstance(mode, dict) and "budget_tokens" in mode else BUDGETS[effort]
    bound = _max_tokens(request, target)
    most = (bound if isinstance(bound, int) else _decode(bound)) - 1  # type: ignore[arg-type]
    return {"type": "enabled", "budget_tokens": min(budget, most)} if most >= MIN_BUDGET_TOKENS else None


def _is_inside_turn(request: Request) -> bool:
    """Whether the model is to go on after tool results without the thinking that led to its calls: it then refuses to think at all."""
    for message in reversed(request.messages):
        if message.role == "assistant":
            return not any(type(part) is Reasoning and part.origin == NAME and part.signature for part in message.parts)
        if message.role == "user" and not any(type(part) is ToolResult for part in message.parts):
            return False
    return False
