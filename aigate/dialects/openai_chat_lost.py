"""What of a neutral request OpenAI chat cannot say: warnings with the field's path, before anything is sent. Pure.

It names losses of meaning only. Parameters that one row refuses are the quirks' business (core/edits.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from aigate.core.call import Warning
from aigate.core.neutral import Media, Opaque, Part, Reasoning, Request, Text, ToolResult
from aigate.core.target import Target
from aigate.dialects.openai_chat_message import NAME, has_place


def lost(request: Request, target: Target) -> list[Warning]:
    warnings: list[Warning] = []
    for place, message in enumerate(request.messages):
        _walk(message.parts, f"messages[{place}].content", request.dialect, warnings)
    for place, tool in enumerate(request.tools or ()):
        if tool.kind not in ("function", "custom") and request.dialect != NAME:
            warnings.append(Warning("dropped", f"tools[{place}]", f"{tool.kind} is a tool of the other provider"))
    return warnings


def _walk(parts: Sequence[Part], path: str, dialect: str, warnings: list[Warning]) -> None:
    for place, part in enumerate(parts):
        here = f"{path}[{place}]"
        if type(part) is Opaque and part.dialect != NAME:
            warnings.append(Warning("dropped", here, f"{part.kind or 'this part'} cannot be said in this format"))
        elif type(part) is Media and part.file_id is not None and dialect != NAME:
            warnings.append(Warning("dropped", here, "a file of another provider"))
        elif type(part) is Media and not has_place(part):
            warnings.append(Warning("dropped", here, f"{part.kind} by URL is not taken in this format"))
        elif type(part) is Reasoning and (part.signature or part.encrypted):
            warnings.append(Warning("dropped", f"{here}.signature", "reasoning of another provider"))
        elif type(part) is Text and part.citations:
            warnings.append(Warning("dropped", f"{here}.citations", "this format takes no citations"))
        elif type(part) is ToolResult:
            if part.is_error:
                warnings.append(Warning("dropped", f"{here}.is_error", "this format marks no failed results"))
            if any(type(inner) is Media for inner in part.parts):
                warnings.append(Warning("moved", here, "media of a tool result goes into a message of the user"))
            _walk(part.parts, f"{here}.content", dialect, warnings)
