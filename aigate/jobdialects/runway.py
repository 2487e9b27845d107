"""Runway: POST /text_to_video or /image_to_video, GET /tasks/{id}, DELETE /tasks/{id}.

Read from runwayml/sdk-python (types/task_retrieve_response.py, image_to_video_create_params.py, text_to_video_create_params.py; 2026) and
docs.dev.runwayml.com (2026-10-20): sure. Needs the header x-runway-version (the provider's row). Over-many tasks are THROTTLED, not
refused. URLs of results last a day. No webhooks, no idempotency key.
"""

from __future__ import annotations

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled, Submitted
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Resource,
    bad_reply,
    fraction,
    post_json,
    read_object,
    rejection,
    required,
    result_at,
    said,
    segment,
    state_of,
    whole,
)

_STATES = {
    "PENDING": QUEUED, "THROTTLED": QUEUED, "RUNNING": PROCESSING, "SUCCEEDED": COMPLETED, "FAILED": FAILED, "CANCELLED": CANCELLED,
}  # fmt: skip

# Runway names a shape by its pixels; the second where 1080p is asked for (Veo by way of Runway).
_RATIOS = {
    "16:9": ("1280:720", "1920:1080"), "9:16": ("720:1280", "1080:1920"), "1:1": ("960:960", "1440:1440"),
    "4:3": ("1104:832", "1664:1248"), "3:4": ("832:1104", "1248:1664"), "21:9": ("1584:672", "2206:946"),
}  # fmt: skip


class Runway(Resource):
    name = "runway"
    modalities = ("video",)
    path = "/tasks"

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        shapes = _RATIOS.get(request.aspect_ratio or "")
        body = said(
            model=target.upstream_model, promptText=request.prompt or None, promptImage=request.image_url,
            ratio=shapes[request.resolution == "1080p"] if shapes else request.aspect_ratio,
            duration=whole(request.duration), seed=request.seed, audio=request.audio, negativePrompt=request.negative_prompt,
        )  # fmt: skip
        return post_json("/text_to_video" if request.image_url is None else "/image_to_video", {**request.extra, **body})

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        return Submitted(handle=required(read_object(reply).get("id"), reply, "id"))

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("status"), _STATES, reply)
        if state == FAILED:
            return Polled(state=FAILED, failure=rejection(job.get("failure"), job.get("failureCode"), ("safety", "moderation")))
        if state != COMPLETED:
            return Polled(state=state, progress=fraction(job.get("progress")))
        output = job.get("output")
        urls = output if type(output) is list else []
        results = tuple(result for url in urls[:MAX_RESULTS] if (result := result_at(url, "video")) is not None)
        if not results:
            raise bad_reply(reply, "a finished task without output")
        return Polled(state=COMPLETED, progress=1.0, results=results)

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return HttpRequest(method="DELETE", url=f"/tasks/{segment(handle)}")
