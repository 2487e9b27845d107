"""Luma Agents API: POST /generations with type video, GET /generations/{id}.

Read from lumalabs/luma-agents-python (types/generation.py, video_options_param.py; 2026) and docs.agents.lumalabs.ai (guides, errors;
2026-09-19): sure. The older Dream Machine API (api.lumalabs.ai) ended with Ray 2 and is not this. Durations are "5s" and "10s"; the second
cannot be had with a first picture as start_frame, so a picture goes as the only keyframe. URLs of results last an hour. No cancelling,
no webhooks in the reference, no idempotency key.
"""

from __future__ import annotations

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Resource,
    bad_reply,
    decode_picture,
    dig,
    post_json,
    rejection,
    result_at,
    said,
    state_of,
    whole,
)

_STATES = {"queued": QUEUED, "pending": QUEUED, "processing": PROCESSING, "completed": COMPLETED, "failed": FAILED}


class Luma(Resource):
    name = "luma"
    modalities = ("video",)
    path = "/generations"

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        extra = dict(request.extra)
        options = extra.pop("video", None)
        seconds = whole(request.duration)
        video = said(resolution=request.resolution, duration=None if seconds is None else f"{seconds}s")
        if request.image_url is not None:
            video |= {"keyframes": [_picture(request.image_url)], "keyframe_indexes": [0]}
        body = said(model=target.upstream_model, type="video", prompt=request.prompt, aspect_ratio=request.aspect_ratio)
        return post_json("/generations", {**extra, **body, "video": {**(options if type(options) is dict else {}), **video}})

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("state"), _STATES, reply)
        if state == FAILED:
            return Polled(state=FAILED, failure=rejection(job.get("failure_reason"), job.get("failure_code"), ("moderated",)))
        if state != COMPLETED:
            return Polled(state=state)
        output = job.get("output")
        found = output if type(output) is list else []
        results = tuple(result for entry in found[:MAX_RESULTS] if (result := result_at(dig(entry, "url"), "video")) is not None)
        if not results:
            raise bad_reply(reply, "a finished generation without output")
        return Polled(state=COMPLETED, progress=1.0, results=results)


def _picture(url: str) -> dict[str, object]:
    if not url.startswith("data:"):
        return {"url": url}
    media_type, data = decode_picture(url)
    return {"data": data, "media_type": media_type}
