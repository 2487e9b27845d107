"""Errors on OpenAI surfaces: what a provider's error body means, and our own envelope. Also the redactor. Pure.

Provider bodies come in every shape (an object, an array of one, a string, HTML, nothing); none may raise here. Whether to retry is said
by the status and a few known codes, never by who sent it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import msgspec

from aigate.errors import GateError, ProviderError

MAX_MESSAGE_CHARS = 2048
MAX_RETRY_AFTER_S = 86_400.0

# Codes and types of a 429 that waiting does not cure: the account behind our credential is out of money.
_OUT_OF_MONEY = frozenset(
    {
        "insufficient_quota", "exceeded_current_quota_error", "credit_balance_exhausted", "insufficient_balance",
        "billing_hard_limit_reached", "insufficient_credits", "payment_required", "1113",
    }
)  # fmt: skip

_PARAM = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,99}")  # as `messages[0].content`
_TAGS = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.DOTALL | re.IGNORECASE)
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.DOTALL | re.IGNORECASE)
_RETRY_WORDS = re.compile(r"(?:try again|retry) (?:in|after) (?:(\d+)h)?(?:(\d+)m(?!s))?(?:([\d.]+)(ms|s))?", re.IGNORECASE)
_SECRETS = re.compile(
    r"(?i:bearer)\s+[A-Za-z0-9._~+/=-]{8,}"
    r"|\b(?:(?:sk|pk|rk|csk|xai|nvapi|pplx)-|(?:gsk|hf|r8|tgp|pk|sk|rk)_)[A-Za-z0-9_*.-]{8,}"
    r"|\bAIza[A-Za-z0-9_-]{10,}"
    r"|\beyJ[A-Za-z0-9_-]{6,}\.[A-Za-z0-9_.-]+"
    r"|\b(?=[A-Za-z0-9_]*[0-9])(?=[A-Za-z0-9_]*[A-Za-z])[A-Za-z0-9_]{40,}\b"
)


def redact(text: str, secrets: tuple[str, ...] = ()) -> str:
    """`text` with each known secret, and whatever looks like one, masked."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[redacted]")
    return _SECRETS.sub("[redacted]", text)


# --- ours → the client ----------------------------------------------------------------------------------------------------


def error_object(error: GateError, request_id: str) -> dict[str, object]:
    """The inside of the envelope; the same object travels in-band on a stream that has begun."""
    fields: dict[str, object] = {
        "message": error.message,
        "type": error.type,
        "code": error.code,
        "param": error.param,
        "status": error.status,
        "origin": error.origin,
        "retryable": error.retryable,
        "request_id": request_id,
    }
    if error.retry_after_s is not None:
        fields["retry_after_s"] = error.retry_after_s
    for key, value in error.extra.items():
        if value is not None:
            fields[key] = value
    return fields


def write_error(error: GateError, request_id: str) -> bytes:
    return msgspec.json.encode({"error": error_object(error, request_id)})


# --- the provider's → ours ------------------------------------------------------------------------------------------------


def read_error(status: int, headers: Mapping[bytes, bytes], body: bytes) -> ProviderError:
    """A provider's refusal. Its message is kept, capped, for the caller; the spine redacts it with the secrets it knows."""
    return _read_error(f"the provider answered {status}", status, headers, body)


def _read_error(how: str, status: int, headers: Mapping[bytes, bytes], body: bytes) -> ProviderError:
    said, code, kind_of_error, param = _read_body(body)
    fields = _classify(status, {code.lower(), kind_of_error.lower()})
    message = how + (" to the gateway's own credential" if fields["kind"] == "auth" else "")
    if code:
        fields["provider_code"] = code[:200]
    if fields["kind"] == "rejected" and _PARAM.fullmatch(param):
        fields["param"] = param
    if fields.get("retryable", True):
        fields["retry_after_s"] = _retry_after(headers, said)
    return ProviderError(f"{message}: {said}" if said else message, provider_status=status, **fields)  # type: ignore[arg-type]


def error_in(fields: object) -> object:
    """The error that an object under status 200 is about, or something false: one under `error`, or the object itself (vLLM of old)."""
    if type(fields) is not dict:
        return None
    return fields.get("error") or (fields if fields.get("object") == "error" else None)


def read_error_object(fields: object, status: int = 0) -> ProviderError:
    """An error inside a stream or a reply of status 200: a numeric code in it that is an HTTP status counts as one."""
    for key in ("status_code", "code", "status"):
        value = fields.get(key) if type(fields) is dict else None
        if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
            value = int(value)
        if type(value) is int and 400 <= value <= 599:
            status = value
            break
    how = f"the provider answered {status}" if status else "the provider answered with an error"
    return _read_error(how, status or 502, {}, msgspec.json.encode({"error": fields}))


def read_error_event(payload: bytes) -> ProviderError:
    """The data of an event named `error` that is no error of this format: an object that is one by itself, or text."""
    try:
        fields = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = None
    return read_error_object(fields) if type(fields) is dict else read_error(502, {}, payload)


def _classify(status: int, words: set[str]) -> dict[str, object]:
    """How a provider's status reads to us, as fields of a ProviderError."""
    if status in (401, 402, 403) or (status == 429 and words & _OUT_OF_MONEY):
        return {"kind": "auth", "retryable": False}
    if status == 429:
        return {"kind": "rate_limited", "status": 429, "type": "rate_limit_error", "code": "rate_limited"}
    if status == 404:
        return {"kind": "rejected", "status": 404, "type": "model_not_found", "code": "unknown_model", "retryable": False}
    if status in (408, 504):
        return {"kind": "timeout", "status": 504, "type": "timeout_error", "code": "provider_timeout"}
    if status in (503, 529):
        return {"kind": "overloaded", "status": 503, "code": "capacity_exceeded"}
    if 400 <= status < 500 and status not in (409, 425):
        status, code = (413, "payload_too_large") if status == 413 else (422 if status == 422 else 400, "invalid_request")
        return {"kind": "rejected", "status": status, "type": "invalid_request_error", "code": code, "retryable": False}
    return {"kind": "error"}


def _read_body(body: bytes) -> tuple[str, str, str, str]:
    """(message, code, type, param) from whatever the provider sent."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _plain_text(body), "", "", ""
    if type(value) is list and value:  # Google wraps its error in an array
        value = value[0]
    if type(value) is not dict:
        return _cap(value if isinstance(value, str) else ""), "", "", ""
    outer = value
    inner = value.get("error")
    if type(inner) is dict:
        value = inner
    elif isinstance(inner, str):
        said = outer.get("message")
        return _cap(said if isinstance(said, str) and said else inner), _word(outer.get("code")), inner if " " not in inner else "", ""
    message = value.get("message") or value.get("detail") or value.get("msg") or value.get("errors") or ""
    if not isinstance(message, str):
        message = _details(message)
    reason = value.get("metadata")
    if type(reason) is dict and isinstance(reason.get("raw"), str):  # a router says what its own upstream said
        message = f"{message}: {reason['raw']}"
    return _cap(message), _word(value.get("code")), _word(value.get("type") or value.get("status")), _word(value.get("param"))


def _details(value: object) -> str:
    """A list of complaints, each with its place: `[{"loc": ["body", "n"], "msg": "…"}]`."""
    if type(value) is not list:
        return msgspec.json.encode(value).decode()
    texts = []
    for entry in value[:20]:
        if type(entry) is dict:
            place = ".".join(map(str, entry["loc"])) if type(entry.get("loc")) is list else ""
            text = str(entry.get("msg") or entry.get("message") or "")
            texts.append(f"{place}: {text}" if place else text)
        else:
            texts.append(str(entry))
    return "; ".join(texts)


def _word(value: object) -> str:
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else ""


def _plain_text(body: bytes) -> str:
    """HTML or plain text, without its mark-up."""
    text = body[:65_536].decode("utf-8", "replace")
    title = _TITLE.search(text)
    return _cap(" ".join(_TAGS.sub(" ", title[1] if title else text).split()))


def _cap(text: str) -> str:
    return text if len(text) <= MAX_MESSAGE_CHARS else text[:MAX_MESSAGE_CHARS] + "…"


def _retry_after(headers: Mapping[bytes, bytes], message: str) -> float | None:
    """Seconds to wait: the headers' word, else the message's ("try again in 1m2.5s")."""
    for key, scale in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            seconds = float(headers.get(key, b"")) * scale
        except ValueError:
            continue
        if 0 <= seconds <= MAX_RETRY_AFTER_S:
            return seconds
    wait_s = _until(headers.get(b"retry-after", b""), headers.get(b"date", b""))
    if wait_s is not None:
        return wait_s
    found = _RETRY_WORDS.search(message)
    if found is None or not any(found.groups()):
        return None
    hours, minutes, number, unit = found.groups()
    try:
        rest = float(number or 0) * (0.001 if unit == "ms" else 1.0)
    except ValueError:
        rest = 0.0
    return min(int(hours or 0) * 3600 + int(minutes or 0) * 60 + rest, MAX_RETRY_AFTER_S)


def _until(then: bytes, now: bytes) -> float | None:
    """Between two HTTP dates: Retry-After may be one, and Date says when it was written by the same clock."""
    try:
        seconds = (parsedate_to_datetime(then.decode("latin-1")) - parsedate_to_datetime(now.decode("latin-1"))).total_seconds()
    except (ValueError, TypeError, OverflowError):  # not dates, or one without its zone
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_S)
