"""What a conversation, a reply and a stream mean in any format: the same value for the same meaning, whoever read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from aigate.core.neutral import Media, Reasoning, Refusal, Request, Text, Tool, ToolCall, ToolResult

INSTRUCTIONS = ("system", "developer")


def conversation(request: Request) -> dict[str, Any]:
    """Instructions; turns in their order, each all that one side says before the other does; tools. Ids of calls become numbers."""
    places: dict[str, int] = {}
    turns: list[tuple[str, dict[str, Any]]] = []
    for message in request.messages:
        if message.role in INSTRUCTIONS:
            continue
        side = "assistant" if message.role == "assistant" else "user"
        said = _said(message.parts, places, is_result=message.role == "function")
        if not any(said.values()):
            continue
        if turns and turns[-1][0] == side:
            for key, value in said.items():
                turns[-1][1][key] += value
        else:
            turns.append((side, said))
    return {
        "instructions": " ".join(_texts(part for m in request.messages if m.role in INSTRUCTIONS for part in m.parts).split()),
        "turns": turns,
        "tools": [tool_meaning(tool) for tool in request.tools or () if tool.kind in ("function", "custom") and tool.name],
    }


def tool_meaning(tool: Tool) -> tuple[str, str, Any]:
    """A free text is what a function of one `input` takes."""
    free = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}
    return tool.name, tool.description or "", schema_meaning(free if tool.kind == "custom" else tool.parameters or {}, is_outer=True)


def schema_meaning(schema: Any, *, is_outer: bool = False) -> Any:
    """A constant is an enum of one; the name of the draft says nothing; parameters are an object."""
    if isinstance(schema, list):
        return [schema_meaning(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    fields = {key: schema_meaning(value) for key, value in schema.items() if key != "$schema"}
    if "const" in fields and not isinstance(fields["const"], dict):
        fields["enum"] = [fields.pop("const")]
    return {"type": "object", "properties": {}, **fields} if is_outer else fields


def _texts(parts: Iterable[Any]) -> str:
    return " ".join(part.text for part in parts if type(part) in (Text, Refusal))


def _said(parts: Sequence[Any], places: dict[str, int], *, is_result: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"text": "", "calls": [], "results": [], "media": []}
    if is_result:  # of before tools: one call, one result
        return said | {"results": [(len(places) - 1, "".join(part.text for part in parts if type(part) is Text))]}
    for part in parts:
        kind = type(part)
        if kind in (Text, Refusal):
            said["text"] += part.text
        elif kind is ToolCall:
            said["calls"].append((places.setdefault(part.id, len(places)), part.name, arguments(part)))
        elif kind is ToolResult:
            inner = "".join(each.text for each in part.parts if type(each) is Text)
            said["results"].append((places.setdefault(part.call_id, len(places)), inner))
            said["media"] += [medium(each) for each in part.parts if type(each) is Media and each.file_id is None]
        elif kind is Media and part.file_id is None:
            said["media"].append(medium(part))
    return said


def arguments(call: Any) -> Any:
    """As JSON; a free text is what a function of one `input` is called with."""
    if call.kind == "custom":
        return {"input": call.arguments}
    try:
        value = json.loads(call.arguments or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def medium(media: Media) -> tuple[str, str | None, str | None]:
    return media.kind, media.url, media.data


def told(parts: Iterable[Any]) -> dict[str, Any]:
    """What every format can say of an assistant's parts."""
    parts = list(parts)
    return {
        "text": "".join(part.text for part in parts if type(part) in (Text, Refusal)),
        "reasoning": "".join(part.text for part in parts if type(part) is Reasoning),
        "calls": [(part.name, arguments(part)) for part in parts if type(part) is ToolCall],
    }


def finish_told(reason: str | None, said: dict[str, Any]) -> str:
    """Why it ended, as the poorest of the formats can tell it: by its own word for too long or filtered, else by what was said."""
    if reason in ("length", "pause_turn", "model_context_window_exceeded"):
        return "length"
    if reason in ("content_filter", "refusal"):
        return "content_filter"
    return "tool_calls" if said["calls"] else "stop"


def folded(events: Iterable[Any]) -> tuple[dict[str, Any], str | None]:
    """What the first choice of a stream's events says, plain runs included, and its finish reason."""
    said: dict[str, str] = {"text": "", "refusal": "", "reasoning": ""}
    tools: dict[int, list[str]] = {}
    finish = None
    for event in events:
        run = None if event.texts is None else json.loads(b'"' + b"".join(event.texts) + b'"')
        for delta in event.chunk.deltas if event.chunk is not None else ():
            if delta.index:
                continue
            for key in said:
                value = getattr(delta, key)
                said[key] += (value or "") if run is None or not value else run
            for call in delta.tool_calls:
                known = tools.setdefault(call.index, ["", "", call.kind])
                known[0] = known[0] or call.name or ""
                known[1] += call.arguments if run is None else run
            finish = delta.finish_reason or finish
    calls = [(name, arguments(ToolCall("", name, args, kind))) for name, args, kind in tools.values()]
    return {"text": said["text"] + said["refusal"], "reasoning": said["reasoning"], "calls": calls}, finish
