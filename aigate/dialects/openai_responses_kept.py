"""Responses that are kept here: what a call that goes on from one becomes, what of a reply is kept, how its input is listed. Pure.

A kept turn is the caller's `input` and the response as the caller got it. Who may see it, and for how long, is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from aigate.core.call import Call
from aigate.dialects.proof import MARK

_MARK = MARK.encode()
_PREFIXES = {"message": "msg", "reasoning": "rs", "function_call": "fc", "custom_tool_call": "ctc"}  # of ids we make for items without one

_encode = msgspec.json.encode
_decode_items = msgspec.json.Decoder(list[Raw]).decode


class _Response(msgspec.Struct):
    id: str
    output: list[Raw]


class _Terminal(msgspec.Struct):
    response: Raw


_decode_response = msgspec.json.Decoder(_Response).decode
_decode_terminal = msgspec.json.Decoder(_Terminal).decode


def prepare(call: Call, *, is_kept: bool, earlier: bytes | None) -> Call:
    """The call as providers are to see it: `earlier` (a JSON array) before its own items. Its `store` says what we do, as the reply will."""
    pairs = {**call.pairs, "store": Raw(b"true" if is_kept else b"false")}
    if earlier is None:
        return replace(call, pairs=pairs, is_kept=is_kept)
    given = join_items([*_decode_items(earlier), *_input_items(bytes(call.pairs["input"]))])
    pairs["input"] = Raw(given)
    return replace(call, pairs=pairs, is_kept=is_kept, body_bytes=call.body_bytes + len(earlier), holds_proofs=_MARK in given)


def read_finished(sent: bytes) -> tuple[str, bytes]:
    """(id, the response) of a plain reply, or of the last events of a stream. ValueError for what is none."""
    body = sent if sent[:1] == b"{" else bytes(_decode_terminal(sent[sent.rindex(b"\ndata: ") + 7 :]).response)
    response_id = _decode_response(body).id
    if not response_id:
        raise ValueError("the response has no id")
    return response_id, body


def turn_items(given: bytes, body: bytes) -> list[Raw]:
    """What was said in a kept turn."""
    return [*_input_items(given), *_decode_response(body).output]


def join_items(items: Iterable[Raw]) -> bytes:
    return b"[" + b",".join(map(bytes, items)) + b"]"


def _input_items(given: bytes) -> list[Raw]:
    if given[:1] == b'"':
        return [Raw(b'{"type":"message","role":"user","content":[{"type":"input_text","text":%b}]}' % given)]
    return _decode_items(given)


def list_items(turns: Sequence[Raw], given: bytes, response_id: str) -> list[dict[str, Any]]:
    """The input of a response as it is listed, oldest first: `turns` before it, then its own. Each has an id of its own, and content in parts."""
    listed: list[dict[str, Any]] = []
    taken: set[str] = set()
    for place, raw in enumerate((*turns, *_input_items(given))):
        item = msgspec.json.decode(raw)
        if type(item) is not dict:
            continue
        kind = item.setdefault("type", "message")
        item_id = item.get("id")
        if not isinstance(item_id, str) or item_id in taken:
            item_id = f"{_PREFIXES.get(kind, 'item')}_{response_id.removeprefix('resp_')}_in{place}"
        taken.add(item_id)
        if kind == "message" and isinstance(item.get("content"), str):
            part = {"type": "input_text", "text": item["content"]}
            item["content"] = [{"type": "output_text", "text": item["content"], "annotations": []} if item.get("role") == "assistant" else part]
        listed.append({**item, "id": item_id})
    return listed
