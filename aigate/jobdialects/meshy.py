"""Meshy: POST /v2/text-to-3d or /v1/image-to-3d, GET …/{id}.

Read from docs.meshy.ai (en/api/text-to-3d, api/webhooks, llms-full.txt), 2026-11-28: sure of routes, states and the object. From text it makes
a mesh without texture (its preview stage); texture is a second order of its own, which a caller places with `mode: "refine"` and
`preview_task_id`. It counts in credits and says how many it took. Not sure that deleting a running task stops it, so nothing is cancelled.
Webhooks are set up in its console, not in a request. No idempotency key.
"""

from __future__ import annotations

import msgspec

from aigate.core.job import CREDIT, JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled, Submitted
from aigate.jobdialects.family import (
    Family,
    bad_reply,
    dig,
    failure,
    fraction,
    number_of,
    post_json,
    read_object,
    required,
    result_at,
    said,
    segment,
    state_of,
)

_STATES = {
    "PENDING": QUEUED, "IN_PROGRESS": PROCESSING, "SUCCEEDED": COMPLETED, "FAILED": FAILED, "CANCELED": CANCELLED, "EXPIRED": FAILED,
}  # fmt: skip
_FROM_TEXT, _FROM_PICTURE = "/v2/text-to-3d", "/v1/image-to-3d"
_FORMATS = ("glb", "pre_remeshed_glb", "fbx", "obj", "usdz", "stl")  # the first there is, is the result
_MOST_CREDITS = 10_000  # of one task: beyond it the number is a mistake


class Meshy(Family):
    name = "meshy"
    modalities = ("3d",)

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        if request.image_url is not None:
            body = said(ai_model=target.upstream_model, image_url=request.image_url, texture_prompt=request.prompt or None)
            return post_json(_FROM_PICTURE, {**request.extra, **body})
        body = said(ai_model=target.upstream_model, prompt=request.prompt or None)
        return post_json(_FROM_TEXT, {"mode": "preview", **request.extra, **body})

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        task = required(read_object(reply).get("result"), reply, "id of the task")
        return Submitted(handle=f"{_FROM_TEXT if request.image_url is None else _FROM_PICTURE}/{segment(task)}")

    def write_poll(self, handle: str, target: Target) -> HttpRequest:
        return HttpRequest(url=handle)

    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Polled:
        task = read_object(reply)
        state = state_of(task.get("status"), _STATES, reply)
        if state == FAILED:
            return Polled(state=FAILED, failure=failure(dig(task, "task_error", "message")))
        if state != COMPLETED:
            return Polled(state=state, progress=fraction(task.get("progress"), of=100))
        urls = task.get("model_urls")
        found = (result_at(dig(urls, name), "3d", "model/gltf-binary" if name == "glb" else "") for name in _FORMATS)
        result = next((result for result in found if result is not None), None)
        if result is None:
            raise bad_reply(reply, "a finished task without a model")
        return Polled(state=COMPLETED, progress=1.0, results=(result,), **_charged(task))


def _charged(task: dict) -> dict[str, object]:
    credits = number_of(task.get("consumed_credits"))
    if credits is None or not 0 <= credits <= _MOST_CREDITS:
        return {}
    return {"units": {CREDIT: round(credits * 1000)}, "raw_usage": msgspec.json.encode({"consumed_credits": task["consumed_credits"]})}
