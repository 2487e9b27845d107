"""Errors of Anthropic Messages: the envelope its clients read, and what a provider's own means. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aigate.dialects import openai_errors
from aigate.errors import GateError, ProviderError

# HTTP status → the word clients of this format switch on.
_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    409: "conflict_error", 413: "request_too_large", 422: "invalid_request_error", 429: "rate_limit_error", 503: "overloaded_error",
    504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_STATUSES = {
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403, "not_found_error": 404,
    "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip


class _Envelope(msgspec.Struct):
    error: dict[str, object]


_decode = msgspec.json.Decoder(_Envelope).decode


def write_error(error: GateError, request_id: str) -> bytes:
    inside = openai_errors.error_object(error, request_id)
    inside["type"] = _TYPES.get(error.status, "api_error" if error.status >= 500 else "invalid_request_error")
    return msgspec.json.encode({"type": "error", "error": inside, "request_id": request_id})


def read_error(status: int, headers: Mapping[bytes, bytes], body: bytes) -> ProviderError:
    error = openai_errors.read_error(status, headers, body)
    try:
        details = _decode(body).error.get("details")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        details = None
    if type(details) is dict and isinstance(details.get("error_code"), str):  # its clients switch on that; the rest may say too much
        error.extra["details"] = {key: details[key] for key in ("error_code", "unsupported") if key in details}
    return error


def read_error_object(fields: object) -> ProviderError:
    """An error inside a stream or a reply of status 200: its type says which status it would have had."""
    kind = fields.get("type") if type(fields) is dict else None
    return openai_errors.read_error_object(fields, _STATUSES.get(kind, 0) if isinstance(kind, str) else 0)
