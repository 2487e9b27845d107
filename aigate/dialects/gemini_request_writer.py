"""Neutral requests → Gemini requests, and what of them cannot be said here. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.call import Warning
from aigate.core.neutral import Bag, Media, Message, Opaque, Part, Reasoning, Request, Text, Tool, ToolCall, ToolResult
from aigate.core.params import EFFORT, THINKING
from aigate.core.target import Target
from aigate.dialects.body import value_of
from aigate.dialects.gemini_parts import NAME, write_contents, write_part
from aigate.dialects.gemini_request import BUDGET_KEY, CONFIG, LEVEL_KEY, SAID, SIMPLE, THINKING_CONFIG, TIERS, fold
from aigate.dialects.gemini_schema import lowered

# Efforts on models that take a number of tokens (low, medium, high: as Google's own OpenAI layer has them, read 2026-11).
BUDGETS = {"none": 0, "minimal": 512, "low": 1_024, "medium": 8_192, "high": 24_576, "xhigh": 24_576, "max": 24_576}
LEVELS = {"max": "XHIGH"}  # every other word is the same in capitals

_TIERS = {ours: theirs for theirs, ours in TIERS.items()}
_SAYABLE = frozenset({*SIMPLE.values(), EFFORT, THINKING, "tool_choice", "response_format", "modalities", "service_tier"})
# Parameters of other formats that change nothing of the answer: nothing is lost with them.
_QUIET = frozenset({"stream_options", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_options", "prompt_cache_retention"})
# Values that ask for what happens anyway.
_DEFAULTS: Mapping[str, Sequence[Any]] = {
    "parallel_tool_calls": (True,), "store": (False,), "logit_bias": ({},), "metadata": ({},), "verbosity": ("medium",), "functions": ([],),
}  # fmt: skip
_TEXT_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}

_decode = msgspec.json.decode
_encode = msgspec.json.encode


def write_request(request: Request, target: Target) -> bytes:
    is_own = request.dialect == NAME
    bag, said = dict(request.bags.get(NAME, {})), request.bags.get(SAID, {})
    if not is_own:
        for message in request.messages:
            message.parts = _without_files(message.parts)
    pairs: Bag = {"contents": write_contents(request.messages, needs_signatures=target.quirks.needs_signatures)}
    instruction = _instruction(request.messages)
    if instruction is not None and not pairs["contents"]:
        pairs["contents"] = [{"role": "user", **instruction}]  # there must be something to answer
    elif instruction is not None:
        pairs["systemInstruction"] = instruction
    tools = [] if request.tools is None else _tools(request.tools, is_own)
    if tools:
        pairs["tools"] = tools
    calling = said["tool_choice"] if "tool_choice" in said else _function_calling(request) if tools else None
    if calling is not None:
        pairs["toolConfig"] = {"functionCallingConfig": calling, **bag.pop("toolConfig", {})}
    if "response_format" in said:
        pairs |= {f"{CONFIG}.{key}": value for key, value in said["response_format"].items()}
    else:
        _put_format(pairs, request.params)
    _put_params(pairs, request.params)
    _put_thinking(pairs, request.params, target, is_own)
    return _encode(fold(pairs | bag))


def _without_files(parts: Sequence[Part]) -> list[Part]:
    """File ids are never good at another provider."""
    kept: list[Part] = [part for part in parts if type(part) is not Media or part.file_id is None]
    for part in kept:
        if type(part) is ToolResult:
            part.parts = _without_files(part.parts)
    return kept


def _instruction(messages: Sequence[Message]) -> Bag | None:
    """This format has one place for instructions: several are joined there, in their order."""
    found = [message for message in messages if message.role in ("system", "developer")]
    if not found:
        return None
    if len(found) == 1:
        parts = [written for part in found[0].parts if (written := write_part(part)) is not None]
        return {"parts": parts, **found[0].bag} if parts else None
    texts = ["".join(part.text for part in message.parts if type(part) is Text) for message in found]
    return {"parts": [{"text": "\n\n".join(texts)}]}


def _tools(tools: Sequence[Tool], is_own: bool) -> list[Bag]:
    functions = [_function(tool) for tool in tools if tool.kind in ("function", "custom")]
    written: list[Bag] = [{"functionDeclarations": functions}] if functions else []
    return written + [tool.bag for tool in tools if is_own and tool.kind not in ("function", "custom")]


def _function(tool: Tool) -> Bag:
    inside = tool.bag.get("custom") or tool.bag if tool.kind == "custom" else {}
    fields: Bag = {"name": tool.name or inside.get("name", "")}
    description = inside.get("description") if tool.description is None else tool.description
    if description is not None:
        fields["description"] = description
    if tool.kind == "custom":
        return fields | {"parametersJsonSchema": _TEXT_INPUT}
    if tool.parameters is not None and "parameters" not in tool.bag:
        fields["parametersJsonSchema"] = lowered(tool.parameters)
    return fields | tool.bag


def _function_calling(request: Request) -> Bag | None:
    choice = value_of(request.params, "tool_choice")
    is_strict = any(tool.strict for tool in request.tools or ())
    if isinstance(choice, str):
        mode = {"auto": "VALIDATED" if is_strict else "AUTO", "required": "ANY", "none": "NONE"}.get(choice)
        return {"mode": mode} if mode else None
    if isinstance(choice, dict):
        return _named_tools(choice)
    return {"mode": "VALIDATED"} if is_strict else None


def _named_tools(choice: Bag) -> Bag | None:
    allowed = choice.get("allowed_tools")
    entries = [choice]
    mode = "ANY"
    if isinstance(allowed, dict):
        tools = allowed.get("tools")
        entries = tools if type(tools) is list else []
        mode = "ANY" if allowed.get("mode") == "required" else "VALIDATED"
    inner = [entry.get(str(entry.get("type"))) or entry for entry in entries if isinstance(entry, dict)]
    names = [entry["name"] for entry in inner if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
    return {"mode": mode, "allowedFunctionNames": names} if names else None


def _put_format(pairs: Bag, params: Mapping[str, Raw]) -> None:
    form = value_of(params, "response_format")
    kind = form.get("type") if isinstance(form, dict) else None
    if kind not in ("json_object", "json_schema"):
        return
    pairs[f"{CONFIG}.responseMimeType"] = "application/json"
    inside = form.get("json_schema") if kind == "json_schema" else None
    if isinstance(inside, dict) and inside.get("schema") is not None:
        pairs[f"{CONFIG}.responseJsonSchema"] = lowered(inside["schema"])


def _put_params(pairs: Bag, params: Mapping[str, Raw]) -> None:
    for key, name in SIMPLE.items():
        raw = params.get(name)
        if raw is not None and bytes(raw) != b"null":
            pairs[f"{CONFIG}.{key}"] = raw
    stop = value_of(params, "stop")
    if isinstance(stop, str):
        pairs[f"{CONFIG}.stopSequences"] = [stop]
    modalities = value_of(params, "modalities")
    if isinstance(modalities, list):
        pairs[f"{CONFIG}.responseModalities"] = [str(word).upper() for word in modalities]
    tier = _TIERS.get(str(value_of(params, "service_tier")))
    if tier is not None:
        pairs["serviceTier"] = tier


def _put_thinking(pairs: Bag, params: Mapping[str, Raw], target: Target, is_own: bool) -> None:
    effort, mode = value_of(params, EFFORT), value_of(params, THINKING)
    budget = None
    if isinstance(mode, dict):
        budget = 0 if mode.get("type") == "disabled" else mode.get("budget_tokens")
    takes = target.quirks.thinking
    if effort is not None and takes == "budget":
        budget = BUDGETS.get(effort) if budget is None else budget
    elif isinstance(effort, str) and budget is None:
        pairs[LEVEL_KEY] = LEVELS.get(effort, effort.upper())
    if budget is not None:
        pairs[BUDGET_KEY] = budget
    if not is_own and budget != 0 and effort != "none" and (effort is not None or budget is not None):
        pairs[f"{CONFIG}.{THINKING_CONFIG}.includeThoughts"] = True  # who asks for reasoning elsewhere gets to see it


# --- losses ---------------------------------------------------------------------------------------------------------------


def lost(request: Request, target: Target) -> list[Warning]:
    warnings: list[Warning] = []
    is_own = request.dialect == NAME
    has_begun = False
    for place, message in enumerate(request.messages):
        path = f"messages[{place}]"
        if message.role in ("system", "developer"):
            if has_begun:
                warnings.append(Warning("moved", path, "this format takes instructions at the beginning only"))
        else:
            has_begun = True
        _walk(message.parts, f"{path}.content", is_own, warnings)
    if not has_begun and request.messages:
        warnings.append(Warning("moved", "messages[0]", "this format needs a message of the user: the instructions become one"))
    for place, tool in enumerate(request.tools or ()):
        if tool.kind == "custom":
            warnings.append(Warning("moved", f"tools[{place}]", "a tool of free text becomes a function of one string, input"))
        elif tool.kind != "function" and not is_own:
            warnings.append(Warning("dropped", f"tools[{place}]", f"{tool.kind} is a tool of the other provider"))
    for name, raw in request.params.items():
        if name not in _SAYABLE and name not in _QUIET and bytes(raw) != b"null" and _decode(raw) not in _DEFAULTS.get(name, ()):
            warnings.append(Warning("dropped", request.spelling.get(name, name), "this format has no such parameter"))
    tier = value_of(request.params, "service_tier")
    if not is_own and tier not in (None, "auto", *_TIERS):
        warnings.append(Warning("dropped", "service_tier", "this format has standard, flex and priority", str(tier)))
    return warnings


def _walk(parts: Sequence[Part], path: str, is_own: bool, warnings: list[Warning]) -> None:
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        if type(part) is Opaque and part.dialect != NAME:
            warnings.append(Warning("dropped", here, f"{part.kind or 'this part'} cannot be said in this format"))
        elif type(part) is Reasoning and part.origin != NAME:
            warnings.append(Warning("dropped", here, "reasoning of another provider"))
        elif type(part) is ToolCall and part.signature and part.origin != NAME:
            warnings.append(Warning("dropped", f"{here}.signature", "reasoning of another provider"))
        elif type(part) is Text and part.citations and not is_own:
            warnings.append(Warning("dropped", f"{here}.citations", "this format takes no citations"))
        elif type(part) is Media and not is_own:
            if part.file_id is not None:
                warnings.append(Warning("dropped", here, "a file id is known only to the provider that gave it"))
            elif part.detail not in (None, "auto"):
                warnings.append(Warning("dropped", f"{here}.detail", "this format has no such field"))
        elif type(part) is ToolResult:
            _walk(part.parts, f"{here}.content", is_own, warnings)
