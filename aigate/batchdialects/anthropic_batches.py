"""Anthropic's /messages/batches (platform.claude.com/docs/en/api/creating-message-batches, 2026-11): one request with all lines.

Nothing of ours can be attached to a batch, so one whose reply was lost cannot be told from another: `can_look_up` is False.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aigate.batchdialects.dialect import Entry, Outcome, State, read_json, text_of
from aigate.core.target import Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest

_JSON = {"content-type": "application/json"}
_STATUSES = {  # of the plain endpoint, by the type of its error
    "invalid_request_error": 400, "authentication_error": 401, "billing_error": 402, "permission_error": 403, "not_found_error": 404,
    "request_too_large": 413, "rate_limit_error": 429, "api_error": 500, "timeout_error": 504, "overloaded_error": 529,
}  # fmt: skip

_encode = msgspec.json.Encoder().encode


class AnthropicBatches:
    name = "anthropic"
    formats = frozenset({"anthropic-messages"})
    can_look_up = False

    def upload(self, part_id: str, entries: Sequence[Entry], target: Target) -> None:
        return None

    def read_upload(self, reply: HttpReply) -> str:
        return ""

    def submit(self, part_id: str, entries: Sequence[Entry], target: Target, uploaded: str) -> HttpRequest:
        requests = b",".join(b'{"custom_id":%b,"params":%b}' % (_encode(entry.call_id), entry.body) for entry in entries)
        return HttpRequest(method="POST", url="/messages/batches", headers=_JSON, body=b'{"requests":[%b]}' % requests)

    def look_up(self, part_id: str) -> HttpRequest:
        return HttpRequest(url="/messages/batches")

    def read_look_up(self, reply: HttpReply, part_id: str) -> None:
        return None

    def poll(self, handle: str) -> HttpRequest:
        return HttpRequest(url=f"/messages/batches/{handle}")

    def read_state(self, reply: HttpReply) -> State:
        found = read_json(reply.body)
        handle = text_of(found, "id")
        is_over = found.get("processing_status") == "ended"
        results = (HttpRequest(url=f"/messages/batches/{handle}/results"),) if is_over else ()
        return State(handle=handle, is_over=is_over, results=results)

    def cancel(self, handle: str) -> HttpRequest:
        return HttpRequest(method="POST", url=f"/messages/batches/{handle}/cancel", headers=_JSON)

    def read_outcome(self, line: bytes) -> Outcome:
        try:
            found = _read_line(line)
        except (msgspec.DecodeError, RecursionError):
            raise ProviderError("a line of the provider's results cannot be read", kind="bad_reply") from None
        result = found.result
        if result.type == "succeeded" and bytes(result.message):
            return Outcome(call_id=found.custom_id, status=200, body=bytes(result.message))
        if result.type == "errored" and bytes(result.error):
            return Outcome(call_id=found.custom_id, status=_status(bytes(result.error)), body=bytes(result.error))
        problem = {"canceled": "cancelled", "expired": "expired"}.get(result.type, "error")
        return Outcome(call_id=found.custom_id, problem=problem)


class _Result(msgspec.Struct):
    type: str
    message: msgspec.Raw = msgspec.Raw(b"")
    error: msgspec.Raw = msgspec.Raw(b"")


class _Line(msgspec.Struct):
    custom_id: str
    result: _Result


_read_line = msgspec.json.Decoder(_Line).decode


def _status(error: bytes) -> int:
    try:
        return _STATUSES.get(read_json(error)["error"]["type"], 500)
    except (ProviderError, LookupError, TypeError):
        return 500


ANTHROPIC_BATCHES = AnthropicBatches()
