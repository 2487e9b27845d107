"""Errors on Gemini surfaces: our own in Google's envelope, and the few things that only Google's say. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from aigate.dialects import openai_errors
from aigate.errors import GateError, ProviderError

_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "FAILED_PRECONDITION", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ABORTED", 429: "RESOURCE_EXHAUSTED", 499: "CANCELLED", 500: "INTERNAL", 502: "UNAVAILABLE", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
_TYPE = "type.googleapis.com/google.rpc."
_DELAY = re.compile(r"(\d{1,6}(?:\.\d{1,9})?)s")
_BAD_KEY = "API_KEY_INVALID"  # comes with status 400

_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


# --- ours → the client ----------------------------------------------------------------------------------------------------


def error_object(error: GateError, request_id: str) -> dict[str, object]:
    fields = openai_errors.error_object(error, request_id)
    known = {key: value if isinstance(value, str) else msgspec.json.encode(value).decode() for key, value in fields.items() if value is not None}
    for key in ("message", "status", "retry_after_s"):
        known.pop(key, None)
    details: list[dict[str, object]] = [{"@type": _TYPE + "ErrorInfo", "reason": error.code.upper(), "domain": "aigate", "metadata": known}]
    if error.param:
        violation = {"field": error.param, "description": error.message}
        details.append({"@type": _TYPE + "BadRequest", "fieldViolations": [violation]})
    if error.retry_after_s is not None:
        details.append({"@type": _TYPE + "RetryInfo", "retryDelay": f"{error.retry_after_s:g}s"})
    status = _STATUSES.get(error.status) or ("INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
    return {"code": error.status, "message": error.message, "status": status, "details": details}


def write_error(error: GateError, request_id: str) -> bytes:
    return msgspec.json.encode({"error": error_object(error, request_id)})


# --- the provider's → ours ------------------------------------------------------------------------------------------------


def read_error(status: int, headers: Mapping[bytes, bytes], body: bytes) -> ProviderError:
    details = _details(body)
    if any(entry.get("reason") == _BAD_KEY for entry in details):
        status = 401
    error = openai_errors.read_error(status, headers, body)
    for entry in details:
        found = _DELAY.fullmatch(str(entry.get("retryDelay", "")))
        if found is not None and error.retry_after_s is None and error.retryable:
            error.retry_after_s = min(float(found[1]), openai_errors.MAX_RETRY_AFTER_S)
    return error


def _details(body: bytes) -> list[dict[str, object]]:
    try:
        value = msgspec.json.decode(body)
    except _UNREADABLE:
        return []
    if type(value) is list and value:
        value = value[0]
    inner = value.get("error") if type(value) is dict else None
    details = inner.get("details") if type(inner) is dict else None
    return [entry for entry in details if type(entry) is dict] if type(details) is list else []


def read_error_object(fields: object) -> ProviderError:
    """An error that came inside a stream or under status 200."""
    code = fields.get("code") if type(fields) is dict else None
    status = code if type(code) is int and 400 <= code <= 599 else 502
    return read_error(status, {}, msgspec.json.encode({"error": fields}))
