"""The simulated provider speaking Gemini: what it takes, refuses and answers (ai.google.dev/api/generate-content, …/thought-signatures,
…/function-calling, read 2026-11). It gives every function call an id; a response may leave it out, as the vendor's own SDK does. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from aigate.sim.answers import Answer, Answers, ChatRequest
from aigate.sim.behaviours import Behaviour, read_behaviour
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
    data_url,
    is_signed,
    need,
    one_of,
    same_base64,
    sign,
)  # fmt: skip
from aigate.sim.replies import PADDING, Identity, Piece, encode
from aigate.sim.server import Request

VENDOR = "google"
NO_PROOF = "skip_thought_signature_validator"  # the vendor's own word for a call that another model made
PATH = re.compile(r"/v1(?:beta)?/models/([^/]+):(generateContent|streamGenerateContent)(?:\?(.*))?")
_REQUEST: Fields = {
    "contents": LIST, "systemInstruction": OBJECT, "tools": LIST, "toolConfig": OBJECT, "safetySettings": LIST, "generationConfig": OBJECT,
    "cachedContent": TEXT, "labels": OBJECT, "serviceTier": TEXT, "store": FLAG,
}  # fmt: skip
_CONFIG: Fields = {
    "temperature": NUMBER, "topP": NUMBER, "topK": NUMBER, "candidateCount": WHOLE, "maxOutputTokens": WHOLE, "stopSequences": LIST, "seed": WHOLE,
    "presencePenalty": NUMBER, "frequencyPenalty": NUMBER, "responseLogprobs": FLAG, "logprobs": WHOLE, "responseMimeType": TEXT,
    "responseSchema": OBJECT, "responseJsonSchema": OBJECT, "responseModalities": LIST, "mediaResolution": TEXT, "speechConfig": OBJECT,
    "thinkingConfig": OBJECT,
}  # fmt: skip
_SIDE: Fields = {"thought": FLAG, "thoughtSignature": TEXT, "videoMetadata": OBJECT, "mediaResolution": OBJECT}
_DATA: Mapping[str, tuple[Fields, tuple[str, ...]]] = {
    "inlineData": ({"mimeType": TEXT, "data": TEXT, "displayName": TEXT}, ("mimeType", "data")),
    "fileData": ({"mimeType": TEXT, "fileUri": TEXT, "displayName": TEXT}, ("fileUri",)),
    "functionCall": ({"name": TEXT, "args": OBJECT, "id": TEXT}, ("name",)),
    "functionResponse": ({"name": TEXT, "response": OBJECT, "id": TEXT, "parts": LIST, "willContinue": FLAG, "scheduling": TEXT}, ("name", "response")),
}
_FUNCTION: Fields = {
    "name": TEXT, "description": TEXT, "parameters": OBJECT, "parametersJsonSchema": OBJECT, "response": OBJECT, "responseJsonSchema": OBJECT,
    "behavior": TEXT,
}  # fmt: skip
_SCHEMA: Fields = {  # the vendor's subset of OpenAPI, in `parameters` and `responseSchema`
    "type": TEXT, "format": TEXT, "title": TEXT, "description": TEXT, "nullable": FLAG, "enum": LIST, "maxItems": ANY, "minItems": ANY,
    "properties": OBJECT, "required": LIST, "minProperties": ANY, "maxProperties": ANY, "minLength": ANY, "maxLength": ANY, "pattern": TEXT,
    "example": ANY, "anyOf": LIST, "propertyOrdering": LIST, "default": ANY, "items": OBJECT, "minimum": NUMBER, "maximum": NUMBER,
    "additionalProperties": ANY,
}  # fmt: skip
_TYPES = ("STRING", "NUMBER", "INTEGER", "BOOLEAN", "ARRAY", "OBJECT", "NULL")
_OWN_DATA = ("args", "response", "parametersJsonSchema", "responseJsonSchema", "properties", "labels")
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,127}")
_LEVELS = ("MINIMAL", "LOW", "MEDIUM", "HIGH", "XHIGH")
_FINISHES = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS"}
_STATUSES = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 429: "RESOURCE_EXHAUSTED",
             500: "INTERNAL", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"}  # fmt: skip


# --- what it takes ----------------------------------------------------------------------------------------------------------------


def read(request: Request) -> ChatRequest:
    found = PATH.fullmatch(request.target)
    assert found is not None  # or it would not have been routed here
    model, action = unquote(found[1]), found[2]
    body = check(_documented(body_of(request.body)), "", _REQUEST, ("contents",))
    config = check(body.get("generationConfig", {}), "generationConfig", _CONFIG)
    shows = _check_config(config)
    tools = _read_tools(body.get("tools", []))
    names = [tool["function"]["name"] for tool in tools]
    choice = _read_choice(check(body.get("toolConfig", {}), "toolConfig", {"functionCallingConfig": OBJECT, "retrievalConfig": OBJECT}), names)
    lead = []
    if "systemInstruction" in body:
        check(body["systemInstruction"], "systemInstruction", {"role": TEXT, "parts": LIST}, ("parts",))
        lead = [{"role": "system", "content": [_read_part(part, "systemInstruction.parts") for part in body["systemInstruction"]["parts"]]}]
    return ChatRequest(
        model, lead + _read_contents(body["contents"], reasons=bool(read_behaviour(model).reasoning)), stream=action == "streamGenerateContent",
        max_tokens=config.get("maxOutputTokens"), n=config.get("candidateCount"), seed=config.get("seed"), stop=config.get("stopSequences"),
        tools=tools or None, tool_choice=choice, response_format=_read_format(config), shows_reasoning=shows,
        is_array="alt=sse" not in (found[3] or "").split("&"),
    )  # fmt: skip


def _documented(value: Any) -> Any:
    """Fields in their documented spelling; the one with underscores is taken too. What is the caller's own data stays."""
    if type(value) is list:
        return [_documented(entry) for entry in value]
    if type(value) is not dict:
        return value
    named = {re.sub(r"_([a-z])", lambda found: found[1].upper(), key): inner for key, inner in value.items()}
    return {key: inner if key in _OWN_DATA else _documented(inner) for key, inner in named.items()}


def _check_config(config: dict) -> bool:
    """Whether thoughts are to be shown."""
    need(0 <= config.get("temperature", 0) <= 2, "must be in the range [0.0, 2.0]", "generationConfig.temperature")
    need(config.get("maxOutputTokens", 1) >= 1, "must be positive", "generationConfig.maxOutputTokens")
    need(1 <= config.get("candidateCount", 1) <= 8, "must be in the range [1, 8]", "generationConfig.candidateCount")
    need(len(config.get("stopSequences", ())) <= 5, "at most 5", "generationConfig.stopSequences")
    need("logprobs" not in config or config.get("responseLogprobs"), "logprobs needs responseLogprobs", "generationConfig.logprobs")
    path = "generationConfig.thinkingConfig"
    thinking = check(config.get("thinkingConfig", {}), path, {"includeThoughts": FLAG, "thinkingBudget": WHOLE, "thinkingLevel": TEXT})
    need(not {"thinkingBudget", "thinkingLevel"} <= thinking.keys(), "You can only set one of thinking budget and thinking level.", path)
    one_of(thinking.get("thinkingLevel", "HIGH"), _LEVELS, f"{path}.thinkingLevel")
    return bool(thinking.get("includeThoughts"))


def _read_contents(contents: list[Any], *, reasons: bool) -> list[dict]:
    need(contents, "contents is not specified", "contents")
    chat: list[dict] = []
    waiting: list[dict] = []  # the calls of the turn before, which must be answered at once and all
    turn = max((place for place, content in enumerate(contents) if _is_question(content)), default=0)  # from where the current turn runs
    role = ""
    for place, content in enumerate(contents):
        path = f"contents[{place}]"
        check(content, path, {"role": TEXT, "parts": LIST}, ("parts",))
        role = content.get("role", "user")
        one_of(role, ("user", "model"), f"{path}.role")
        need(content["parts"], "must include at least one parts field", path)
        parts = [(part, _read_part(part, f"{path}.parts[{at}]")) for at, part in enumerate(content["parts"])]
        calls = [part["functionCall"] for part, _ in parts if "functionCall" in part]
        answers = [part["functionResponse"] for part, _ in parts if "functionResponse" in part]
        need(not calls or role == "model", "function calls come from the model", path)
        if waiting or answers:
            _match(waiting, answers, path)
        if reasons and calls and place > turn:
            need(
                next(part for part, _ in parts if "functionCall" in part).get("thoughtSignature"),
                f"Function call is missing a thought_signature in functionCall parts. Additional data, function call `{calls[0]['name']}`, "
                f"position {place}.", path,
            )  # fmt: skip
        waiting = calls
        chat += _as_chat(role, parts)
    need(role == "user", "Please ensure that the last turn is of the user: prefilling is not supported.", "contents")
    need(not waiting, "function calls without their responses", "contents")
    return chat


def _is_question(content: Any) -> bool:
    parts = content.get("parts") if type(content) is dict else None
    is_user = type(parts) is list and content.get("role", "user") == "user"
    return is_user and not any(type(part) is dict and "functionResponse" in part for part in parts)


def _match(calls: list[dict], answers: list[dict], path: str) -> None:
    same = len(calls) == len(answers)
    need(same, "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.", path)
    ids = {call["id"] for call in calls if "id" in call}
    for answer in answers:
        named = [call for call in calls if call["name"] == answer["name"]]
        need(named, f"functionResponse.name {answer['name']!r} is not that of a call", path)
        need(answer.get("id") in {None, *ids}, "functionResponse.id must match the id of the functionCall", path)


def _read_part(part: Any, path: str) -> dict:
    """As the model behind all formats reads it; {} for what is a call or a response."""
    check(part, path, {"text": TEXT, **dict.fromkeys(_DATA, OBJECT), **_SIDE})
    kinds = [key for key in part if key == "text" or key in _DATA]
    need(len(kinds) == 1, "required oneof field 'data' must have one initialized field", path)
    kind = kinds[0]
    if kind == "text":
        proof = part.get("thoughtSignature")
        need(proof is None or is_signed(VENDOR, "thought", proof), "Thought signature is not valid.", f"{path}.thoughtSignature")
        return {} if part.get("thought") else {"type": "text", "text": part["text"]}
    check(part[kind], f"{path}.{kind}", *_DATA[kind])
    if kind == "inlineData":
        data = same_base64(part[kind]["data"])
        check_base64(data, f"{path}.inlineData.data")
        return {"type": "image_url", "image_url": {"url": data_url(part[kind]["mimeType"], data)}}
    if kind == "fileData":
        return {"type": "image_url", "image_url": {"url": part[kind]["fileUri"]}}
    need(_NAME.fullmatch(part[kind]["name"]), "Invalid function name.", f"{path}.{kind}.name")
    proof = part.get("thoughtSignature")
    need(proof in (None, NO_PROOF) or is_signed(VENDOR, "thought", proof), "Thought signature is not valid.", f"{path}.thoughtSignature")
    return {}


def _as_chat(role: str, parts: list[tuple[dict, dict]]) -> list[dict]:
    chat: list[dict] = []
    for part, _ in parts:
        if "functionResponse" in part:
            given = part["functionResponse"]
            text = given["response"].get("output", given["response"])
            said: list[dict] = [{"type": "text", "text": text if isinstance(text, str) else json.dumps(text)}]
            said += [_read_part(inner, "functionResponse.parts") for inner in given.get("parts", ())]
            chat.append({"role": "tool", "tool_call_id": given.get("id", ""), "content": said})
    calls = [
        {"id": "", "type": "function", "function": {"name": part["functionCall"]["name"], "arguments": json.dumps(part["functionCall"].get("args", {}))}}
        for part, _ in parts if "functionCall" in part
    ]  # fmt: skip
    read = [one for _, one in parts if one]
    if read or calls:
        chat.append({"role": "assistant" if role == "model" else "user", "content": read, **({"tool_calls": calls} if calls else {})})
    return chat


def _read_tools(tools: list[Any]) -> list[dict]:
    read = []
    for place, tool in enumerate(tools):
        check(tool, f"tools[{place}]", {"functionDeclarations": LIST, "googleSearch": OBJECT, "codeExecution": OBJECT, "urlContext": OBJECT})
        for at, function in enumerate(tool.get("functionDeclarations", ())):
            path = f"tools[{place}].functionDeclarations[{at}]"
            check(function, path, _FUNCTION, ("name",))
            need(_NAME.fullmatch(function["name"]), "Invalid function name.", f"{path}.name")
            need(not {"parameters", "parametersJsonSchema"} <= function.keys(), "give one of parameters and parametersJsonSchema", path)
            if "parameters" in function:
                _check_schema(function["parameters"], f"{path}.parameters")
            schema = function.get("parametersJsonSchema") or _plain_schema(function.get("parameters", {}))
            _check_json_schema(schema, f"{path}.parametersJsonSchema")
            read.append({"type": "function", "function": {"name": function["name"], "parameters": schema}})
    names = [tool["function"]["name"] for tool in read]
    need(len(names) == len(set(names)), "Duplicate function declaration found.", "tools")
    return read


def _check_schema(schema: Any, path: str) -> None:
    check(schema, path, _SCHEMA)
    need("type" in schema or "anyOf" in schema, "schema must have a type", path)
    one_of(schema.get("type", "OBJECT").upper(), _TYPES, f"{path}.type")
    for name, inner in schema.get("properties", {}).items():
        _check_schema(inner, f"{path}.properties.{name}")
    for place, inner in enumerate(schema.get("anyOf", ())):
        _check_schema(inner, f"{path}.anyOf[{place}]")
    if "items" in schema:
        _check_schema(schema["items"], f"{path}.items")


def _check_json_schema(schema: Any, path: str) -> None:
    """The words of JSON Schema that the vendor does not know are refused."""
    if type(schema) is not dict:
        return
    for word in ("$schema", "const", "not", "if", "patternProperties", "dependentSchemas"):
        need(word not in schema, f"unsupported keyword {word!r}", path)
    for key in ("properties", "$defs"):
        for name, inner in (schema.get(key) or {}).items():
            _check_json_schema(inner, f"{path}.{key}.{name}")
    for inner in (schema.get("items"), *(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())):
        _check_json_schema(inner, path)


def _plain_schema(schema: Any) -> Any:
    if type(schema) is not dict:
        return schema
    plain = {key: _plain_schema(value) for key, value in schema.items()}
    if isinstance(plain.get("type"), str):
        plain["type"] = plain["type"].lower()
    if type(schema.get("properties")) is dict:
        plain["properties"] = {name: _plain_schema(inner) for name, inner in schema["properties"].items()}
    return plain


def _read_choice(config: dict, names: list[str]) -> str | dict | None:
    calling = config.get("functionCallingConfig")
    if calling is None:
        return None
    path = "toolConfig.functionCallingConfig"
    check(calling, path, {"mode": TEXT, "allowedFunctionNames": LIST})
    mode, allowed = calling.get("mode", "AUTO"), calling.get("allowedFunctionNames", [])
    one_of(mode, ("AUTO", "ANY", "NONE", "VALIDATED"), f"{path}.mode")
    need(not allowed or mode in ("ANY", "VALIDATED"), "allowed_function_names should only be set when mode is ANY or VALIDATED", path)
    for name in allowed:
        need(name in names, f"{name!r} is not declared", f"{path}.allowedFunctionNames")
    if len(allowed) == 1 and mode == "ANY":
        return {"type": "function", "function": {"name": allowed[0]}}
    return {"ANY": "required", "NONE": "none"}.get(mode, "auto")


def _read_format(config: dict) -> dict | None:
    path = "generationConfig"
    need(not {"responseSchema", "responseJsonSchema"} <= config.keys(), "give one of responseSchema and responseJsonSchema", path)
    has_schema = "responseSchema" in config or "responseJsonSchema" in config
    kind = config.get("responseMimeType", "text/plain")
    one_of(kind, ("text/plain", "application/json", "text/x.enum"), f"{path}.responseMimeType")
    need(not has_schema or kind != "text/plain", "a response schema needs response_mime_type application/json", path)
    if kind != "application/json":
        return None
    if not has_schema:
        return {"type": "json_object"}
    if "responseSchema" in config:
        _check_schema(config["responseSchema"], f"{path}.responseSchema")
    else:
        _check_json_schema(config["responseJsonSchema"], f"{path}.responseJsonSchema")
    schema = config.get("responseJsonSchema") or _plain_schema(config["responseSchema"])
    return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}


# --- what it answers ----------------------------------------------------------------------------------------------------------------


def _usage(answers: Answers) -> dict:
    """Numbers of nothing are left out, as the vendor does."""
    counts = {
        "promptTokenCount": answers.prompt_tokens, "cachedContentTokenCount": answers.cached_tokens,
        "candidatesTokenCount": answers.completion_tokens - answers.reasoning_tokens, "thoughtsTokenCount": answers.reasoning_tokens,
        "totalTokenCount": answers.prompt_tokens + answers.completion_tokens,
    }  # fmt: skip
    return {key: count for key, count in counts.items() if count} | {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": answers.prompt_tokens}]}


def _parts(answer: Answer, chat: ChatRequest) -> list[tuple[dict, list[str]]]:
    """(part, its tokens where it is a text that streams)."""
    parts: list[tuple[dict, list[str]]] = []
    proof = {"thoughtSignature": sign(VENDOR, "thought")} if answer.reasoning else {}
    if answer.reasoning and chat.shows_reasoning:
        parts.append(({"text": "".join(answer.reasoning), "thought": True}, answer.reasoning))
    if answer.content:
        parts.append(({"text": "".join(answer.content)}, answer.content))
    for place, call in enumerate(answer.calls):
        inside = {"name": call.name, "args": _object("".join(call.fragments)), "id": call.id}
        parts.append(({"functionCall": inside, **(proof if not place else {})}, []))
    if proof and not answer.calls:
        parts.append(({"text": "", **proof}, []))
    return parts


def _object(text: str) -> dict:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _frame(identity: Identity, candidates: list[dict], usage: dict | None) -> dict:
    fields: dict = {"candidates": candidates} if candidates else {}
    return {**fields, **({} if usage is None else {"usageMetadata": usage}), "modelVersion": identity.model, "responseId": identity.id}


def plain(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> bytes:
    candidates = []
    for index, answer in enumerate(answers.choices):
        parts = [part for part, _ in _parts(answer, chat)] + ([{"text": PADDING}] if behaviour.pad_bytes else [])
        candidates.append({"content": {"role": "model", "parts": parts}, "finishReason": _FINISHES[answer.finish_reason], "index": index})
    return encode(_frame(identity, candidates, None if behaviour.usage == "none" else _usage(answers)))


def stream(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> Iterator[Piece]:
    """Full chunks; of an array the brackets and commas between them."""
    lead = b"[" if chat.is_array else b"data: "
    for fields, tokens in _chunks(identity, answers, behaviour, chat):
        yield Piece(lead + encode(fields) + (b"" if chat.is_array else b"\r\n\r\n"), tokens)
        lead = b",\r\n" if chat.is_array else lead
    if chat.is_array:
        yield Piece(b"]")


def _chunks(identity: Identity, answers: Answers, behaviour: Behaviour, chat: ChatRequest) -> Iterator[tuple[dict, int]]:
    usage = _usage(answers)
    early = {"promptTokenCount": answers.prompt_tokens, "totalTokenCount": answers.prompt_tokens}
    for index, answer in enumerate(answers.choices):
        for part, tokens in _parts(answer, chat):
            for token in tokens or [part.get("text", "")]:
                said = {**part, "text": token} if "text" in part else part
                candidate = {"content": {"role": "model", "parts": [said]}, "index": index}
                weight = 1 if tokens else sum(len(call.fragments) for call in answer.calls if call.id == part.get("functionCall", {}).get("id"))
                yield _frame(identity, [candidate], None if behaviour.usage == "none" else early), weight
        last = {"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": _FINISHES[answer.finish_reason], "index": index}
        yield _frame(identity, [last], None if behaviour.usage == "none" else usage), 0


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> bytes:
    details = [] if param is None else [{"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{"field": param, "description": message}]}]
    return encode({"error": {"code": status, "message": message, "status": _STATUSES.get(status, "UNKNOWN"), "details": details}})


def error_event() -> bytes:
    return error(500, "The simulated provider failed in the middle of its answer, as asked.")
