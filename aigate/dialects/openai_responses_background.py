"""Responses that are made without their caller: what is kept of one while it runs, and what it becomes when it ends, fails or is cancelled. Pure.

While it runs its body begins with a note of who runs it, which no caller sees: a response whose runner is no more has failed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from aigate.core.call import Call
from aigate.dialects.body import decode_pairs
from aigate.dialects.openai_responses_kept import read_finished
from aigate.dialects.openai_responses_reply import echo, kept_state

_NOTE = b'{"aig_run_by":'

_JOURNAL = re.compile(rb'\{"aig_run_by":"(jrn_[0-9A-Za-z]{1,64})"')

_encode = msgspec.json.encode


def begun(call: Call, response_id: str, run_by: str) -> bytes:
    """The body of a response that has just begun."""
    pairs, created = call.pairs, call.received_at
    fields: dict[str, Any] = {"id": response_id, "object": "response", "created_at": created, "status": "in_progress", "background": True}
    told = {**echo(pairs), **kept_state(pairs), "model": call.models[0] if call.models else "", "output": [], "usage": None}
    return _encode({"aig_run_by": run_by, **fields, "error": None, "incomplete_details": None, **told})


def run_by(body: bytes) -> str:
    """Who runs it; "" of what has ended."""
    noted = _JOURNAL.match(body) if body.startswith(_NOTE) else None
    return noted[1].decode() if noted else ""


def shown(body: bytes) -> bytes:
    """As a caller sees it."""
    if not body.startswith(_NOTE):
        return body
    fields = decode_pairs(body)
    del fields["aig_run_by"]
    return _encode(fields)


def is_background(body: bytes) -> bool:
    return bytes(decode_pairs(body).get("background", b"")) == b"true"


def ended(sent: bytes, response_id: str) -> bytes:
    """The finished response, of the last events of its stream, under the id that its caller has. ValueError for what is none."""
    _, body = read_finished(sent)
    return _encode({**decode_pairs(body), "id": response_id, "background": True})


def stopped(body: bytes, status: str, error: Mapping[str, Any] | None = None) -> bytes:
    """A response that did not come to its end: `status` failed (with what went wrong) or cancelled."""
    told = None if error is None else {"code": str(error.get("code") or "server_error"), "message": str(error.get("message") or "")}
    return _encode({**decode_pairs(shown(body)), "status": status, "error": told})


def read_problem(sent: bytes) -> Mapping[str, Any] | None:
    """The error that an error reply, or the last event of a stream, tells of."""
    at = sent.rfind(b"\ndata: ")
    try:
        fields = msgspec.json.decode(sent[at + 7 :] if at >= 0 else sent)
        error = fields.get("error") or (fields.get("response") or {}).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError, AttributeError):
        return None
    return error if isinstance(error, dict) else None
