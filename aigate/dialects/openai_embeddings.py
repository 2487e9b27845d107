"""The OpenAI embeddings format: input in, vectors out. Pure. Vectors are never decoded; there is nothing to stream.

It keeps the parts of `Dialect` that a plain endpoint has; the neutral form of an embeddings call is its pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.call import Call
from aigate.core.edits import Edit, apply_to_pairs
from aigate.core.neutral import Reply, Request
from aigate.core.target import Target
from aigate.dialects.body import read_fallbacks, read_pairs, typed, wrong
from aigate.dialects.dialect import Head, OpenedReply, Settlement
from aigate.dialects.openai_chat_request import read_models
from aigate.dialects.openai_usage import open_pairs, write_usage_object
from aigate.dialects.unstreamed import Unstreamed
from aigate.errors import ClientError, ProviderError

NAME = "openai-embeddings"
ACTED_ON = frozenset({"model", "input", "encoding_format", "dimensions", "fallbacks"})
MAX_INPUTS = 2048  # in one call

_inputs = msgspec.json.Decoder(str | list[str | int | list[int]]).decode
_formats = msgspec.json.Decoder(str | None).decode
_dimensions = msgspec.json.Decoder(int | None).decode
_INPUT_FORMS = "a string, an array of strings, an array of token numbers or an array of such arrays"


class OpenAIEmbeddings(Unstreamed):
    """Keeps `Dialect` (dialects/dialect.py) for endpoint embeddings."""

    name = NAME

    def read_call(self, body: bytes, endpoint: str, head: Head) -> Call:
        pairs = read_pairs(body, ACTED_ON)
        if "input" not in pairs:
            raise ClientError(f"input is missing: send {_INPUT_FORMS}", param="input")
        _check_input(pairs)
        form = typed(pairs, "encoding_format", _formats, '"float" or "base64"')
        if form not in (None, "float", "base64"):
            raise wrong("encoding_format", '"float" or "base64"', pairs["encoding_format"])
        dimensions = typed(pairs, "dimensions", _dimensions, "a whole number from 1")
        if dimensions is not None and dimensions < 1:  # type: ignore[operator]
            raise wrong("dimensions", "a whole number from 1", pairs["dimensions"])
        call = Call(NAME, endpoint, pairs, len(body), read_models(pairs))
        read_fallbacks(call)
        return call

    def edit_pairs(self, call: Call, edits: Sequence[Edit], target: Target) -> bytes:
        pairs: dict[str, Any] = apply_to_pairs(call.pairs, edits, self.params, {})
        pairs["model"] = target.upstream_model
        return msgspec.json.encode(pairs)

    def read_request(self, call: Call) -> Request:
        return Request(call.models[0] if call.models else "", [], params=apply_to_pairs(call.pairs, (), self.params, {}), dialect=NAME)

    def write_request(self, request: Request, target: Target) -> bytes:
        spelling = target.quirks.spelling
        return msgspec.json.encode({**{spelling.get(k, k): v for k, v in request.params.items()}, "model": target.upstream_model})

    def open_reply(self, body: bytes, target: Target) -> OpenedReply:
        opened = open_pairs(body, target, "data", makes_tokens=False)
        if opened is None:
            raise ProviderError(f"the provider's reply of {len(body)} bytes holds no embeddings", kind="bad_reply", provider_status=200)
        return opened

    def splice_reply(self, opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes:
        return opened.body if opened.pairs is None else _write(opened.pairs, asked, settlement)

    def write_reply(self, reply: Reply, asked: str, settlement: Settlement) -> bytes:
        return _write(reply.bags[NAME], asked, settlement)


def _write(pairs: Mapping[str, Any], asked: str, settlement: Settlement) -> bytes:
    usage = write_usage_object(settlement, has_output=False)
    return msgspec.json.encode({"object": "list", **pairs, "model": asked, "usage": usage})


def _check_input(pairs: Mapping[str, Raw]) -> None:
    raw = pairs["input"]
    value = typed(pairs, "input", _inputs, _INPUT_FORMS)
    if not isinstance(value, list):
        return
    if not value or len({type(item) for item in value}) > 1:
        raise wrong("input", _INPUT_FORMS + " (not empty, not mixed)", raw)
    if type(value[0]) is not int and len(value) > MAX_INPUTS:
        raise ClientError(f"input has {len(value)} items; at most {MAX_INPUTS} are allowed in one call", param="input")
