"""Losses that are the same whatever is crossed into: parameters only the caller's own format has. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from aigate.core.call import Warning
from aigate.core.neutral import Request
from aigate.core.params import EFFORT, THINKING
from aigate.errors import ClientError

# They steer what is kept, cached or padded, or which detail comes along; the answer is the same without.
_QUIET = frozenset({"store", "include", "stream", "stream_options", "truncation", "cache_control", "labels", "reasoning", "text", "output_config"})
# Surfaces whose whole work an ordinary call does, where the provider has no such endpoint.
_EMULATED = {"openai-compaction": Warning("emulated", "compact", "the model is asked for a summary in words")}
# Composites that a bag keeps whole, for the way back, beside the parameters that say the same.
_SAID_AS = {
    "tool_choice": ("tool_choice",), "thinking": (THINKING, EFFORT), "metadata": ("safety_identifier",),
    "output_format": ("response_format",), "service_tier": ("service_tier",),
    "generationConfig.thinkingConfig.includeThoughts": (THINKING, EFFORT),
}  # fmt: skip
# What a provider keeps for its callers: without it a request is only the end of a conversation. The code is the one that the vendor's SDK
# reads to go on without (anthropic 2.12, lib/threads).
_STATE = ("thread",)
_ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_CHOICES = ("auto", "none", "required", "function", "custom", "allowed_tools")
_SAYS_NOTHING = frozenset({b"null", b"false", b"{}", b"[]", b'""'})


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, Raw) and bytes(value) in _SAYS_NOTHING)


def lost_fields(request: Request, dialect: str) -> list[Warning]:
    """What of the bag of a request is said in its own format and cannot be in `dialect`. ClientError for what cannot cross at all."""
    if request.dialect == dialect:
        return []
    for place, message in enumerate(request.messages):
        if message.role not in _ROLES:  # its own provider may know it
            raise ClientError(f"messages[{place}].role must be one of {', '.join(_ROLES)}", param=f"messages[{place}].role")
    for name in _STATE:
        if name in request.bags.get(request.dialect, {}):
            code = f"{name}_unsupported_request"
            message = f"{name}: the rest of the conversation is kept by another provider; send it whole"
            raise ClientError(message, param=name, code=code, details={"error_code": code, "unsupported": ["model"]})
    warnings = [warning for name, warning in _EMULATED.items() if name == request.dialect] + [
        Warning("dropped", name, "only the format of the request has it")
        for name, value in request.bags.get(request.dialect, {}).items()
        if name not in _QUIET and not _says_nothing(value) and not any(said in request.params for said in _SAID_AS.get(name, ()))
    ]
    thinking = request.params.get(THINKING)
    fields = None if thinking is None else msgspec.json.decode(thinking)
    if isinstance(fields, dict):
        more = [key for key in fields if key not in ("type", "budget_tokens")]
        warnings += [Warning("dropped", f"{THINKING}.{key}", "only the format of the request has it") for key in more]
    choice = request.params.get("tool_choice")
    said = None if choice is None else msgspec.json.decode(choice)
    if said is not None and (said.get("type") if isinstance(said, dict) else said) not in _CHOICES:
        warnings.append(Warning("dropped", "tool_choice", "only auto, none, required and tools by name are known to all"))
    return warnings
