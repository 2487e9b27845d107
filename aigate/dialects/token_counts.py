"""The endpoints at which providers count the tokens of a prompt: requests and replies. Pure.

Each is made from the request that generates, in its own format, and takes less than that does: what it does not take is refused there.
"""

from __future__ import annotations

import msgspec

from aigate.core.target import Target
from aigate.dialects.anthropic_request import spelt
from aigate.dialects.body import decode_pairs
from aigate.errors import ProviderError

_ANTHROPIC_TAKES = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed")
_RESPONSES_TAKES = ("model", "input", "instructions", "tools", "tool_choice", "text", "reasoning", "parallel_tool_calls", "truncation")
_GEMINI_TAKES_BARE = ("contents", "systemInstruction", "tools", "generationConfig")  # all that a count without a wrapper takes


class AnthropicCount:
    """Keeps `TokenEndpoint` (dialects/dialect.py), as the others here."""

    def path(self, url_path: str) -> str:
        return url_path + "/count_tokens"

    def write(self, request: bytes, target: Target) -> bytes:
        pairs = {"model": spelt(target.upstream_model), **decode_pairs(request)}
        return msgspec.json.encode({key: pairs[key] for key in (*_ANTHROPIC_TAKES, *target.quirks.extra) if key in pairs})

    def read(self, body: bytes) -> int:
        return _read(body, "input_tokens")


class ResponsesCount:
    def path(self, url_path: str) -> str:
        return url_path + "/input_tokens"

    def write(self, request: bytes, target: Target) -> bytes:
        pairs = decode_pairs(request)
        return msgspec.json.encode({key: pairs[key] for key in _RESPONSES_TAKES if key in pairs})

    def read(self, body: bytes) -> int:
        return _read(body, "input_tokens")


class GeminiCount:
    def path(self, url_path: str) -> str:
        return url_path.removesuffix(":generateContent") + ":countTokens"

    def write(self, request: bytes, target: Target) -> bytes:
        """The whole request, so that instructions and tools are counted too."""
        pairs = decode_pairs(request)
        if target.quirks.counts_bare:
            return msgspec.json.encode({key: pairs[key] for key in _GEMINI_TAKES_BARE if key in pairs})
        return msgspec.json.encode({"generateContentRequest": {"model": f"models/{target.upstream_model}", **pairs}})

    def read(self, body: bytes) -> int:
        return _read(body, "totalTokens")


def _read(body: bytes, key: str) -> int:
    try:
        tokens = msgspec.json.decode(body)[key]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
        tokens = None
    if type(tokens) is not int or tokens < 0:
        raise ProviderError("the provider's reply holds no token count", kind="bad_reply", provider_status=200)
    return tokens
