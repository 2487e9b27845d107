"""Requests of Gemini: the narrow look at a call, the fast lane's pairs, and the neutral form. Pure.

What sits inside `generationConfig` stands in a call's pairs under its path ("generationConfig.topP"), so that edits, quirks and warnings see
it like any other parameter; composites that the neutral form cannot say whole are kept in the bag for the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any
from urllib.parse import unquote

import msgspec
from msgspec import Meta, Raw

from aigate.core.call import Call
from aigate.core.edits import Edit, apply_to_pairs
from aigate.core.neutral import Bag, Message, Request, Tool
from aigate.core.params import EFFORT, GATEWAY_FIELDS, MAX_ASKED_TOKENS, MAX_OUTPUT_TOKENS, THINKING
from aigate.core.target import Target
from aigate.dialects.body import check_fields, is_array, read_fallbacks, read_pairs, typed, wrong
from aigate.dialects.dialect import Head
from aigate.dialects.gemini_parts import NAME, camel, camel_keys, read_content, read_contents
from aigate.dialects.gemini_schema import to_json_schema
from aigate.dialects.proof import MARK
from aigate.errors import ClientError

CONFIG, THINKING_CONFIG = "generationConfig", "thinkingConfig"
LEVEL_KEY, BUDGET_KEY = f"{CONFIG}.{THINKING_CONFIG}.thinkingLevel", f"{CONFIG}.{THINKING_CONFIG}.thinkingBudget"
SIMPLE: Mapping[str, str] = {  # inside generationConfig, of the same shape in the neutral form
    "temperature": "temperature",
    "topP": "top_p",
    "topK": "top_k",
    "candidateCount": "n",
    "maxOutputTokens": MAX_OUTPUT_TOKENS,
    "stopSequences": "stop",
    "seed": "seed",
    "presencePenalty": "presence_penalty",
    "frequencyPenalty": "frequency_penalty",
    "responseLogprobs": "logprobs",
    "logprobs": "top_logprobs",
}
FORMAT_KEYS = ("responseMimeType", "responseSchema", "responseJsonSchema")
PARAMS: Mapping[str, str] = {
    **{f"{CONFIG}.{key}": name for key, name in SIMPLE.items()},
    f"{CONFIG}.responseJsonSchema": "response_format",
    f"{CONFIG}.responseModalities": "modalities",
    LEVEL_KEY: EFFORT,
    BUDGET_KEY: THINKING,
    "serviceTier": "service_tier",
    "toolConfig": "tool_choice",
}
OWN_KEYS: Mapping[str, str] = {name: key for key, name in PARAMS.items()}
MAX_CHOICES = 128
SAID = "gemini as said"  # bag of what the neutral form does say, but less exactly: for the way back
BARE_NAME = "gemini-"  # what such a name without a provider means on this surface
STREAM_ACTION = "streamGenerateContent"
ACTED_ON = frozenset({"contents", "systemInstruction", CONFIG, "tools", "toolConfig", "serviceTier", "fallbacks"})
TIERS = {"standard": "default", "flex": "flex", "priority": "priority"}  # ours from theirs
MODES = {"AUTO": "auto", "ANY": "required", "NONE": "none", "VALIDATED": "auto"}
_MARK = MARK.encode()


def _decoder(kind: Any) -> Any:
    return msgspec.json.Decoder(kind).decode


_object = _decoder(dict[str, Raw] | None)
_count = _decoder(Annotated[int, Meta(ge=1, le=MAX_ASKED_TOKENS)] | None)
_choices = _decoder(Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None)
_budget = _decoder(Annotated[int, Meta(ge=-1)] | None)
_string = _decoder(str | None)
_decode = msgspec.json.decode
_encode = msgspec.json.encode


# --- the narrow look ------------------------------------------------------------------------------------------------------


def read_path(path: str) -> tuple[str, str]:
    """(model, action) of `/v1beta/models/{model}:{action}`; a name's slashes may be plain or percent-encoded."""
    name, _, action = path.partition("/models/")[2].rpartition(":")
    name = unquote(name).removeprefix("models/")
    if not name:
        raise ClientError("the path names no model: POST …/models/provider/model:generateContent", param="model")
    return (f"google/{name}" if name.startswith(BARE_NAME) and "/" not in name else name), action


def read_call(body: bytes, endpoint: str, head: Head) -> Call:
    model, action = read_path(head.path)
    pairs = {camel(key): raw for key, raw in read_pairs(body, ACTED_ON).items()}
    inner = typed(pairs, "generateContentRequest", _object, "an object") if endpoint == "count_tokens" else None
    if inner:
        pairs = {camel(key): raw for key, raw in inner.items()}  # type: ignore[attr-defined]
    pairs.pop("model", None)  # the path names it
    contents = pairs.get("contents")
    if contents is None:
        raise ClientError("contents is missing: send an array of contents", param="contents")
    if not is_array(contents) or (memoryview(contents).nbytes < 16 and not _decode(contents)):
        raise wrong("contents", "an array of at least one content", contents)
    call = Call(NAME, endpoint, pairs, len(body), (model,), is_stream=action == STREAM_ACTION)
    call.holds_proofs = _MARK in bytes(contents)
    call.is_array = call.is_stream and "alt=sse" not in head.query.split("&")
    if CONFIG in pairs:
        _unfold(pairs, CONFIG)
        if f"{CONFIG}.{THINKING_CONFIG}" in pairs:
            _unfold(pairs, f"{CONFIG}.{THINKING_CONFIG}")
        _read_config(pairs, call)
    read_fallbacks(call)
    return call


def _unfold(pairs: dict[str, Raw], key: str) -> None:
    for name, raw in (typed(pairs, key, _object, "an object") or {}).items():  # type: ignore[attr-defined]
        pairs[f"{key}.{camel(name)}"] = raw
    del pairs[key]


def _read_config(pairs: dict[str, Raw], call: Call) -> None:
    call.max_output_tokens = typed(pairs, OWN_KEYS[MAX_OUTPUT_TOKENS], _count, f"a whole number from 1 to {MAX_ASKED_TOKENS}")  # type: ignore[assignment]
    call.n = typed(pairs, OWN_KEYS["n"], _choices, f"a whole number from 1 to {MAX_CHOICES}") or 1  # type: ignore[assignment]
    level = typed(pairs, LEVEL_KEY, _string, "a string")
    if level:
        call.effort = level.lower()  # type: ignore[attr-defined]
    budget = typed(pairs, BUDGET_KEY, _budget, "a whole number from -1")
    if budget != -1:  # as the model likes: what it does unasked
        call.thinking_budget = budget  # type: ignore[assignment]


# --- the fast lane --------------------------------------------------------------------------------------------------------


def edit_pairs(call: Call, edits: Sequence[Edit], target: Target) -> bytes:
    edits = [_on_wire(edit) if edit.op == "set" else edit for edit in edits]
    return _encode(fold(apply_to_pairs(call.pairs, edits, PARAMS, OWN_KEYS)))


def _on_wire(edit: Edit) -> Edit:
    """A set in this format's words; efforts are the only ones that any row of this format changes to another word."""
    if edit.name != EFFORT or edit.value is None:
        return edit
    return Edit("set", EFFORT, Raw(_encode(_decode(edit.value).upper())), edit.key)


def fold(pairs: Mapping[str, Any]) -> Bag:
    """`{"generationConfig.topP": 1}` → `{"generationConfig": {"topP": 1}}`."""
    folded: Bag = {}
    for key, value in pairs.items():
        if key.startswith(CONFIG):
            *outer, last = key.split(".")
            place = folded
            for name in outer:
                place = place.setdefault(name, {})
            place[last] = value
        else:
            folded[key] = value
    return folded


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_request(call: Call) -> Request:
    pairs = call.pairs
    contents = _decode(pairs["contents"])
    for place, content in enumerate(contents):
        if type(content) is not dict:
            raise ClientError(f"contents[{place}] must be an object with parts", param="contents")
        _check_content(content, f"contents[{place}]")
    request = Request(call.models[0], read_contents(contents), is_stream=call.is_stream, dialect=NAME)
    bag: Bag = {}
    said: Bag = {}
    for key, raw in pairs.items():
        if key in ("contents", "systemInstruction", "tools", "toolConfig") or key in GATEWAY_FIELDS:
            continue
        name = PARAMS.get(key)
        if name == EFFORT and call.effort is not None:
            request.params[EFFORT] = Raw(_encode(call.effort))
        elif name == THINKING and call.thinking_budget is not None:
            mode = {"type": "enabled", "budget_tokens": call.thinking_budget} if call.thinking_budget else {"type": "disabled"}
            request.params[THINKING] = Raw(_encode(mode))
        elif name == "service_tier":
            tier = _decode(raw)
            request.params[name] = Raw(_encode(TIERS.get(tier.lower(), tier) if isinstance(tier, str) else tier))
        elif name == "modalities":
            _read_modalities(raw, request, bag)
        elif name is None or name in (EFFORT, THINKING, "response_format"):
            bag[key] = raw
        else:
            request.params[name] = raw
    _read_format(bag, said, request)
    if "systemInstruction" in pairs:
        _read_instruction(pairs["systemInstruction"], request, bag)
    if "tools" in pairs:
        _read_tools(_decode(pairs["tools"]), request)
    if "toolConfig" in pairs:
        _read_tool_config(_decode(pairs["toolConfig"]), request, bag, said)
    request.bags = {name: kept for name, kept in ((NAME, bag), (SAID, said)) if kept}
    return request


_ROLES = (None, "user", "model", "function")
_NEEDED: Mapping[str, Mapping[str, type]] = {  # kind of part → what it cannot be without
    "inlineData": {"data": str}, "fileData": {"fileUri": str}, "functionCall": {"name": str}, "functionResponse": {"name": str},
}  # fmt: skip


def _check_content(content: Bag, path: str) -> None:
    role, parts = content.get("role"), content.get("parts")
    if role not in _ROLES:
        raise ClientError(f"{path}.role must be user or model", param=f"{path}.role")
    for place, part in enumerate(parts if type(parts) is list else [] if parts is None else [parts]):
        here = f"{path}.parts[{place}]"
        if type(part) is not dict or not part:
            raise ClientError(f"{here} must be an object with a text or other data", param=here)
        for key, inside in camel_keys(part).items():
            if key == "text" and not isinstance(inside, str):
                raise ClientError(f"{here}.text must be a string", param=f"{here}.text")
            if key in _NEEDED:
                if type(inside) is not dict:
                    raise ClientError(f"{here}.{key} must be an object", param=f"{here}.{key}")
                check_fields(camel_keys(inside), _NEEDED[key], f"{here}.{key}")


def _read_modalities(raw: Raw, request: Request, bag: Bag) -> None:
    asked = _decode(raw)
    if type(asked) is list and all(isinstance(word, str) for word in asked):
        request.params["modalities"] = Raw(_encode([word.lower() for word in asked]))
    else:
        bag[OWN_KEYS["modalities"]] = raw


def _read_format(bag: Bag, said: Bag, request: Request) -> None:
    """The neutral response_format, where there is one for it; else the bag keeps its pieces."""
    given = {key: bag[f"{CONFIG}.{key}"] for key in FORMAT_KEYS if f"{CONFIG}.{key}" in bag}
    kind = _decode(given["responseMimeType"]) if "responseMimeType" in given else None
    schema: Any = None
    if "responseJsonSchema" in given:
        schema = _decode(given["responseJsonSchema"])
    elif "responseSchema" in given:
        schema = to_json_schema(_decode(given["responseSchema"]))
    form: Bag = {"type": "json_object"}
    if kind == "application/json" and type(schema) is dict:
        form = {"type": "json_schema", "json_schema": {"name": _schema_name(schema), "schema": schema}}
    elif kind == "text/plain" and schema is None:
        form = {"type": "text"}
    elif kind != "application/json":
        return
    for key in given:
        del bag[f"{CONFIG}.{key}"]
    said["response_format"] = given
    request.params["response_format"] = Raw(_encode(form))


def _schema_name(schema: Bag) -> str:
    """Other formats want a name, of few kinds of characters."""
    title = schema.get("title")
    name = "".join(char if char.isascii() and (char.isalnum() or char in "_-") else "_" for char in title) if isinstance(title, str) else ""
    return name[:64] or "response"


def _read_instruction(raw: Raw, request: Request, bag: Bag) -> None:
    value = _decode(raw)
    if isinstance(value, str):
        value = {"parts": [{"text": value}]}
    if value is None:
        return
    if type(value) is not dict:
        raise wrong("systemInstruction", "an object with parts", raw)
    _check_content(value | {"role": None}, "systemInstruction")
    message = read_content(value)
    request.messages.insert(0, Message("system", message.parts, is_plain=len(message.parts) <= 1, bag=message.bag))


def _read_tools(tools: Any, request: Request) -> None:
    request.tools = []
    for place, entry in enumerate(tools if type(tools) is list else [tools]):
        if type(entry) is not dict:
            raise ClientError(f"tools[{place}] must be an object", param=f"tools[{place}]")
        for key, value in camel_keys(entry).items():
            if key == "functionDeclarations":
                path = f"tools[{place}].{key}"
                if type(value) is not list or any(type(one) is not dict for one in value):
                    raise ClientError(f"{path} must be an array of objects", param=path)
                for at, one in enumerate(value):
                    check_fields(one, {"name": str}, f"{path}[{at}]")
                request.tools += map(_read_function, value)
            else:
                request.tools.append(Tool(key, bag={key: value}))


def _read_function(declaration: Bag) -> Tool:
    fields = camel_keys(declaration)
    name, description = fields.pop("name", ""), fields.pop("description", None)
    parameters = fields.pop("parametersJsonSchema", None)
    if parameters is None and "parameters" in fields:
        parameters = to_json_schema(fields["parameters"])
    return Tool("function", name, description, parameters, None, fields)


def _read_tool_config(config: Any, request: Request, bag: Bag, said: Bag) -> None:
    if config is not None and type(config) is not dict:
        raise ClientError("toolConfig must be an object", param="toolConfig")
    fields = camel_keys(config or {})
    calling = fields.pop("functionCallingConfig", None)
    calling = camel_keys(calling) if type(calling) is dict else {}
    mode = str(calling.get("mode", "")).upper()
    names = calling.get("allowedFunctionNames")
    names = [name for name in names if isinstance(name, str)] if type(names) is list else []
    choice: Any = MODES.get(mode)
    if names and mode in ("ANY", "VALIDATED"):
        functions = [{"type": "function", "function": {"name": name}} for name in names]
        choice = functions[0] if mode == "ANY" and len(functions) == 1 else {
            "type": "allowed_tools", "allowed_tools": {"mode": "required" if mode == "ANY" else "auto", "tools": functions}
        }  # fmt: skip
    if choice is not None:
        request.params["tool_choice"] = Raw(_encode(choice))
        said["tool_choice"] = calling
    elif calling:
        fields["functionCallingConfig"] = calling
    if fields:
        bag["toolConfig"] = fields
