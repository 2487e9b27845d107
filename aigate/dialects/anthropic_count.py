"""Anthropic's count_tokens endpoint: its request and reply. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from aigate.core.target import Target
from aigate.dialects.anthropic_request import spelt
from aigate.errors import ProviderError

# What the endpoint takes; anything else is refused there.
_TAKEN = ("model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "cache_control", "speed")

_decode_pairs = msgspec.json.Decoder(dict[str, Raw]).decode


class AnthropicCount:
    """Keeps `TokenEndpoint` (dialects/dialect.py)."""

    def path(self, url_path: str) -> str:
        return url_path + "/count_tokens"

    def write(self, request: bytes, target: Target) -> bytes:
        pairs = {"model": msgspec.Raw(msgspec.json.encode(spelt(target.upstream_model))), **_decode_pairs(request)}
        return msgspec.json.encode({key: pairs[key] for key in (*_TAKEN, *target.quirks.extra) if key in pairs})

    def read(self, body: bytes) -> int:
        try:
            tokens = msgspec.json.decode(body)["input_tokens"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            tokens = None
        if type(tokens) is not int or tokens < 0:
            raise ProviderError("the provider's reply holds no token count", kind="bad_reply", provider_status=200)
        return tokens
