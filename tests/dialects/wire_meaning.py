"""Wire objects of each format apart from their spelling: only what the vendors document to mean the same is made equal. {format: function}
for requests and for replies; what the gateway sets itself (model, cost, `store`) is left out."""

from __future__ import annotations

from typing import Any

from aigate.dialects.gemini_parts import camel

_OPEN_DATA = ("args", "response", "parametersJsonSchema", "parameters", "responseJsonSchema", "responseSchema")
_SKIPPED_PROOF = "skip_thought_signature_validator"  # put by us where a model wants a proof and there is none


def without(fields: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in keys}


# --- OpenAI chat -------------------------------------------------------------------------------------------------------------------


def _chat_request(request: dict[str, Any]) -> Any:
    fields = without(request, "model", "stream_options")
    fields["messages"] = [_chat_message(message) for message in fields["messages"]]
    if not fields.get("stream"):
        fields.pop("stream", None)
    if isinstance(fields.get("tools"), list):
        fields["tools"] = [{**({"type": "function"} if "function" in tool else {}), **tool} for tool in fields["tools"]]
    for one, same in (("max_completion_tokens", "max_tokens"),):
        if one in fields:
            fields[same] = fields.pop(one)
    return fields


def _chat_message(message: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in message.items() if value is not None and not (key == "tool_calls" and not value)}
    if isinstance(fields.get("content"), str):
        fields["content"] = [{"type": "text", "text": fields["content"]}] if fields["content"] else []
    if not fields.get("content"):
        fields.pop("content", None)
    return fields


def _chat_reply(reply: dict[str, Any]) -> Any:
    fields = without(reply, "model", "usage", "object", "obfuscation", "p")
    fields["choices"] = [
        {"index": 0, **{key: value for key, value in choice.items() if value is not None}, "message": _chat_reply_message(choice["message"])}
        for choice in fields["choices"]
    ]
    return fields


def _chat_reply_message(message: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in message.items() if value not in (None, [], "")}
    for place, call in enumerate(fields.get("tool_calls", ())):
        call["id"] = place  # some come without, and get one
        call.setdefault("type", "function")
        call.get("function", {}).setdefault("arguments", "")
        call.pop("index", None)
    thought = fields.pop("reasoning", None)
    if thought is not None:
        fields.setdefault("reasoning_content", thought)
    return fields


# --- OpenAI Responses -----------------------------------------------------------------------------------------------------------------


def _responses_request(request: dict[str, Any]) -> Any:
    fields = without(request, "model", "store", "include", "previous_response_id")
    if isinstance(fields["input"], str):
        fields["input"] = [{"role": "user", "content": fields["input"]}]
    fields["input"] = [_item(item) for item in fields["input"]]
    if not fields.get("stream"):
        fields.pop("stream", None)
    return fields


def _item(item: dict[str, Any]) -> dict[str, Any]:
    fields = dict(item)
    if "role" in fields:
        fields.setdefault("type", "message")
    for key in ("content", "output"):
        if isinstance(fields.get(key), str):
            fields[key] = [{"text": fields[key]}]
        if isinstance(fields.get(key), list):
            fields[key] = [_item_part(part) for part in fields[key]]
    return fields


def _item_part(part: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in part.items() if value not in (None, [])}
    if "text" in fields:
        fields.pop("type", None)
    if fields.get("type") == "input_image":
        fields.setdefault("detail", "auto")
    return fields


def _responses_reply(reply: dict[str, Any]) -> Any:
    fields = without(reply, "model", "usage")
    fields["output"] = [_item(item) for item in fields["output"]]
    return fields


# --- Anthropic Messages -----------------------------------------------------------------------------------------------------------------


def _anthropic(value: Any) -> Any:
    """A string of content is one text block; null and [] citations are none."""
    if isinstance(value, list):
        return [_anthropic(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    fields = {key: _anthropic(entry) for key, entry in value.items() if not (key == "citations" and not entry)}
    if fields.get("type") == "tool_result" and fields.get("content") in (None, []):
        fields.pop("content", None)
    if isinstance(fields.get("content"), str):
        fields["content"] = [{"type": "text", "text": fields["content"]}]
    return fields


def _anthropic_request(request: dict[str, Any]) -> Any:
    return _anthropic({"max_tokens": 64, **without(request, "model")})


def _anthropic_reply(reply: dict[str, Any]) -> Any:
    return _anthropic(without(reply, "model", "usage"))


# --- Gemini -----------------------------------------------------------------------------------------------------------------------------


def _gemini(value: Any) -> Any:
    """snake_case is camelCase; a call without arguments has none."""
    if type(value) is list:
        return [_gemini(entry) for entry in value]
    if type(value) is not dict:
        return value
    fields = {}
    for key, inner in value.items():
        key = camel(key)
        fields[key] = inner if key in _OPEN_DATA else _gemini(inner)
    if "name" in fields and "args" in fields and not fields["args"]:
        del fields["args"]
    if isinstance(fields.get("data"), str):
        fields["data"] = fields["data"].replace("-", "+").replace("_", "/")  # base64 in either alphabet
    if fields.get("thoughtSignature") == _SKIPPED_PROOF:
        del fields["thoughtSignature"]
    return fields


def _gemini_request(request: dict[str, Any]) -> Any:
    fields = {key: value for key, value in _gemini(request).items() if value != {}}
    tools = fields.get("tools", [])
    tools = tools if type(tools) is list else [tools]
    functions = [one for tool in tools for one in tool.get("functionDeclarations", ())]
    fields["tools"] = [functions, [{key: value} for tool in tools for key, value in tool.items() if key != "functionDeclarations"]]
    fields["contents"] = _whole_turns(fields["contents"])
    if fields.get("systemInstruction"):
        fields["systemInstruction"].pop("role", None)
    return fields


def _whole_turns(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model's turn may stand in several contents, one a chunk of its stream."""
    whole: list[dict[str, Any]] = []
    for content in contents:
        if whole and whole[-1].get("role") == content.get("role") == "model":
            whole[-1]["parts"] += content["parts"]
        else:
            whole.append(content)
    return whole


def _gemini_reply(reply: dict[str, Any]) -> Any:
    fields = without(reply, "modelVersion", "usageMetadata")
    fields.setdefault("responseId", "")
    for place, candidate in enumerate(fields.get("candidates", ())):
        candidate.setdefault("index", place)
        content = candidate["content"] = candidate.get("content") or {}
        content.setdefault("parts", [])
        content.setdefault("role", "model")
    return _gemini(fields)


REQUESTS = {
    "openai-chat": _chat_request, "openai-responses": _responses_request, "anthropic-messages": _anthropic_request, "gemini": _gemini_request,
}  # fmt: skip
REPLIES = {
    "openai-chat": _chat_reply, "openai-responses": _responses_reply, "anthropic-messages": _anthropic_reply, "gemini": _gemini_reply,
}  # fmt: skip
MODEL_KEYS = {"gemini": "modelVersion"}
USAGE_KEYS = {"gemini": "usageMetadata"}
