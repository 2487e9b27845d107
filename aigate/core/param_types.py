"""What parameters of a request may be, under their neutral names: a call that crosses formats is read before it is written, so what another
provider could only misread is refused here, with the caller's own field. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.params import EFFORT, MAX_OUTPUT_TOKENS
from aigate.errors import ClientError

_NUMBER, _WHOLE, _FLAG, _TEXT, _OBJECT = "a number", "a whole number", "true or false", "a string", "an object"
_KINDS: dict[str, Any] = {
    _NUMBER: float | None,
    _WHOLE: int | None,
    _FLAG: bool | None,
    _TEXT: str | None,
    _OBJECT: dict[str, Raw] | None,
    "a string or an array of strings": str | list[str] | None,
    "a string or an object": str | dict[str, Raw] | None,
}
_DECODERS = {words: msgspec.json.Decoder(kind).decode for words, kind in _KINDS.items()}
_TYPES: Mapping[str, str] = {
    "temperature": _NUMBER, "top_p": _NUMBER, "top_k": _NUMBER, "presence_penalty": _NUMBER, "frequency_penalty": _NUMBER, "seed": _WHOLE,
    "n": _WHOLE, "top_logprobs": _WHOLE, MAX_OUTPUT_TOKENS: _WHOLE, "logprobs": _FLAG, "parallel_tool_calls": _FLAG, EFFORT: _TEXT,
    "stop": "a string or an array of strings", "tool_choice": "a string or an object", "response_format": _OBJECT, "metadata": _OBJECT,
    "logit_bias": _OBJECT, "user": _TEXT, "safety_identifier": _TEXT, "service_tier": _TEXT, "verbosity": _TEXT,
}  # fmt: skip


def check_params(params: Mapping[str, Raw], names: Mapping[str, str]) -> None:
    """`names`: neutral name → the caller's own, where it differs. Null is no value."""
    for name, raw in params.items():
        words = _TYPES.get(name)
        if words is None:
            continue
        try:
            _DECODERS[words](raw)
        except msgspec.ValidationError:
            key = names.get(name, name)
            raise ClientError(f"{key} must be {words}", param=key) from None
    form = params.get("response_format")
    fields = None if form is None else msgspec.json.decode(form)
    if fields is not None and fields.get("type") == "json_schema":
        inside = fields.get("json_schema")
        if type(inside) is not dict or not isinstance(inside.get("schema"), dict | bool | None):
            key = names.get("response_format", "response_format")
            raise ClientError(f"{key}: the schema must be an object", param=key)
