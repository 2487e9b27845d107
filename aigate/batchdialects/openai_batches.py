"""OpenAI's /files and /batches (developers.openai.com/api/reference/resources/batches, 2026-11): a file of lines, then a batch of the file.

Our id is in the metadata of the batch, so that one whose reply was lost is found again. A file belongs to one model.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aigate.batchdialects.dialect import Entry, Outcome, State, read_json, text_of
from aigate.core.target import Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest

_JSON = {"content-type": "application/json"}
_OVER = frozenset({"completed", "failed", "expired", "cancelled"})
_URLS = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses", "openai-embeddings": "/v1/embeddings"}
_MARK = "aigate_part"  # key of the metadata
_LOOK_BACK = 100  # batches that are looked at for ours

_encode = msgspec.json.Encoder().encode


class OpenAIBatches:
    name = "openai"
    formats = frozenset(_URLS)
    can_look_up = True

    def upload(self, part_id: str, entries: Sequence[Entry], target: Target) -> HttpRequest:
        url = _encode(_URLS[target.dialect])
        lines = b"".join(
            b'{"custom_id":%b,"method":"POST","url":%b,"body":%b}\n' % (_encode(entry.call_id), url, entry.body) for entry in entries
        )
        boundary = f"part-{part_id}"
        head = (
            f'--{boundary}\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
            f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{part_id}.jsonl"\r\ncontent-type: application/jsonl\r\n\r\n'
        )
        body = b"".join([head.encode(), lines, f"\r\n--{boundary}--\r\n".encode()])
        return HttpRequest(method="POST", url="/files", headers={"content-type": f"multipart/form-data; boundary={boundary}"}, body=body)

    def read_upload(self, reply: HttpReply) -> str:
        return text_of(read_json(reply.body), "id")

    def submit(self, part_id: str, entries: Sequence[Entry], target: Target, uploaded: str) -> HttpRequest:
        asked = {
            "input_file_id": uploaded,
            "endpoint": _URLS[target.dialect],
            "completion_window": "24h",
            "metadata": {_MARK: part_id},
        }
        return HttpRequest(method="POST", url="/batches", headers=_JSON, body=_encode(asked))

    def look_up(self, part_id: str) -> HttpRequest:
        return HttpRequest(url=f"/batches?limit={_LOOK_BACK}")

    def read_look_up(self, reply: HttpReply, part_id: str) -> State | None:
        for each in _objects(read_json(reply.body).get("data")):
            if isinstance(each.get("metadata"), dict) and each["metadata"].get(_MARK) == part_id:
                return _state(each)
        return None

    def poll(self, handle: str) -> HttpRequest:
        return HttpRequest(url=f"/batches/{handle}")

    def read_state(self, reply: HttpReply) -> State:
        return _state(read_json(reply.body))

    def cancel(self, handle: str) -> HttpRequest:
        return HttpRequest(method="POST", url=f"/batches/{handle}/cancel", headers=_JSON, body=b"{}")

    def read_outcome(self, line: bytes) -> Outcome:
        try:
            found = _read_line(line)
        except (msgspec.DecodeError, RecursionError):
            raise ProviderError("a line of the provider's results cannot be read", kind="bad_reply") from None
        if found.response is not None:
            return Outcome(call_id=found.custom_id, status=found.response.status_code, body=bytes(found.response.body))
        code = "" if found.error is None else found.error.code or ""
        problem = {"batch_expired": "expired", "batch_cancelled": "cancelled"}.get(code, "error")
        return Outcome(call_id=found.custom_id, problem=problem)


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str | None = None


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


_read_line = msgspec.json.Decoder(_Line).decode


def _state(batch: dict) -> State:
    status = batch.get("status")
    is_over = isinstance(status, str) and status in _OVER
    files = [batch.get(name) for name in ("output_file_id", "error_file_id")]
    results = tuple(HttpRequest(url=f"/files/{each}/content") for each in files if is_over and isinstance(each, str) and each)
    problem = ""
    if status == "failed" and not results:
        errors = batch.get("errors")
        words = [each.get("message") for each in _objects(errors.get("data") if isinstance(errors, dict) else None)]
        problem = str(words[0])[:300] if words and words[0] else "the provider refused the batch"
    return State(handle=text_of(batch, "id"), is_over=is_over, results=results, problem=problem)


def _objects(value: object) -> list[dict]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


OPENAI_BATCHES = OpenAIBatches()
