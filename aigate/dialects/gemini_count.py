"""Gemini's countTokens endpoint: its request and reply. Pure."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from aigate.core.target import Target
from aigate.errors import ProviderError

_TAKEN_BARE = ("contents", "systemInstruction", "tools", "generationConfig")  # all that a count without a wrapper takes

_decode_pairs = msgspec.json.Decoder(dict[str, Raw]).decode


class GeminiCount:
    """Keeps `TokenEndpoint` (dialects/dialect.py)."""

    def path(self, url_path: str) -> str:
        return url_path.removesuffix(":generateContent") + ":countTokens"

    def write(self, request: bytes, target: Target) -> bytes:
        """The whole request, so that instructions and tools are counted too."""
        if target.quirks.counts_bare:
            pairs = _decode_pairs(request)
            return msgspec.json.encode({key: pairs[key] for key in _TAKEN_BARE if key in pairs})
        return msgspec.json.encode({"generateContentRequest": {"model": f"models/{target.upstream_model}", **_decode_pairs(request)}})

    def read(self, body: bytes) -> int:
        try:
            tokens = msgspec.json.decode(body)["totalTokens"]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError):
            tokens = None
        if type(tokens) is not int or tokens < 0:
            raise ProviderError("the provider's reply holds no token count", kind="bad_reply", provider_status=200)
        return tokens
