"""fal's queue: POST /{model}, GET /{app}/requests/{id}/status, GET /{app}/requests/{id}, PUT …/cancel. All modalities: it runs any model.

Read from fal.ai/docs (model-apis/inference/queue, /webhooks; inference-api/queue/cancel), 2026-11-28: sure. The key travels as
`Authorization: Key …` (the provider's row). `app` is the first two pieces of the model's name. A status COMPLETED says only that it ended:
a failed one carries `error`, and the output is asked for separately. Cancelling stops what waits and asks what runs. The provider posts to
?fal_webhook=URL (signed: ED25519 over request id, user id, time and the SHA-256 of the body, keys at rest.fal.ai/.well-known/jwks.json).
No idempotency key. Not sure: where each model's own output keeps its file; any object with a `url` is taken, the modality's own name first.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, JobFailure, Polled, Result, Submitted
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Family,
    bad_reply,
    dig,
    number_of,
    post_json,
    read_json,
    read_object,
    rejection,
    required,
    result_at,
    segment,
    text_of,
)
from aigate.jobdialects.inputs import model_input

_OWN_NAMES = {
    "video": ("video", "videos"),
    "music": ("audio", "audio_file", "audio_url", "music", "song"),
    "3d": ("model_mesh", "model_glb", "model_urls", "mesh", "glb", "model"),
}
_REJECTED = ("content_policy", "moderation", "safety", "nsfw")
_MAX_DEPTH = 4


class Fal(Family):
    name = "fal"
    modalities = ("video", "music", "3d")
    takes_webhook = True

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        hook = "" if webhook_url is None else "?fal_webhook=" + segment(webhook_url)
        return post_json(f"/{quote(target.upstream_model, safe='/')}{hook}", model_input(request, target.model.job))

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        return Submitted(handle=required(read_object(reply).get("request_id"), reply, "request_id"))

    def write_poll(self, handle: str, target: Target) -> HttpRequest:
        return HttpRequest(url=_request_url(handle, target) + "/status")

    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Polled:
        if reply.status in (400, 422):  # what its model says of the input, in the place of an output
            return Polled(state=FAILED, failure=_complaint(reply))
        body = read_object(reply)
        status = body.get("status")
        if status == "IN_QUEUE":
            return Polled(state=QUEUED)
        if status == "IN_PROGRESS":
            return Polled(state=PROCESSING)
        if status == "COMPLETED":
            if "cancel" in text_of(body.get("error_type")):
                return Polled(state=CANCELLED)
            if body.get("error"):
                return Polled(state=FAILED, failure=rejection(body["error"], body.get("error_type"), _REJECTED))
            return Polled(state=PROCESSING, then=HttpRequest(url=_request_url(handle, target)))
        results = tuple(_files(body, target.endpoint))[:MAX_RESULTS]
        if not results:
            raise bad_reply(reply, "neither a status nor an output with a file")
        return Polled(state=COMPLETED, progress=1.0, results=results)

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return HttpRequest(method="PUT", url=_request_url(handle, target) + "/cancel")


def _request_url(handle: str, target: Target) -> str:
    app = "/".join(target.upstream_model.split("/")[:2])
    return f"/{quote(app, safe='/')}/requests/{segment(handle)}"


def _complaint(reply: HttpReply) -> JobFailure:
    """[{"loc": …, "msg": "what is wrong", "type": "content_policy_violation"}], or the like."""
    detail = dig(read_json(reply), "detail")
    message = text_of(dig(detail, 0, "msg")) or text_of(detail) or f"the model refused the input ({reply.status})"
    return rejection(message, dig(detail, 0, "type"), _REJECTED)


def _files(body: dict, modality: str) -> Iterator[Result]:
    """The files of an output: what bears the modality's own name first, then the rest; each URL once."""
    own = _OWN_NAMES.get(modality, ())
    seen: set[str] = set()
    for value in (*(body[name] for name in own if name in body), *(value for name, value in body.items() if name not in own)):
        for entry in _urls(value, 0):
            url = text_of(entry.get("url"))
            duration_s = number_of(entry.get("duration"))
            result = result_at(entry["url"], modality, entry.get("content_type"), duration_s=duration_s)
            if result is not None and url not in seen:
                seen.add(url)
                yield result


def _urls(value: object, depth: int) -> Iterator[dict]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, str):
        if value.startswith(("https://", "http://", "data:")):
            yield {"url": value}
    elif type(value) is dict and isinstance(value.get("url"), str):
        yield value
    elif type(value) is dict or type(value) is list:
        for inner in value.values() if type(value) is dict else value:
            yield from _urls(inner, depth + 1)
