"""Google Gemini Omni: video by the Interactions API. POST /interactions in the background, GET /interactions/{id}, POST …/cancel.

Read from google-genai 3.4.0 (_gaos/types/interactions, interactions.py), 2026-11-28, and a flow that others verified against the service
(github.com/TanStack/ai issue 871, 2026-07-01): sure of paths, states and where the video is. Not sure: that `duration` is written as "8s".
The provider can post to a URL of the request (webhook_config.uris). No idempotency key.
"""

from __future__ import annotations

import re

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled, Result
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Resource,
    decode_picture,
    decoded,
    dig,
    failure,
    post_json,
    rejection,
    result_at,
    said,
    segment,
    state_of,
    text_of,
    whole,
)

_STATES = {
    "queued": QUEUED, "in_progress": PROCESSING, "completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED,
    "incomplete": FAILED, "budget_exceeded": FAILED, "requires_action": FAILED, "requires_continuation": FAILED,
}  # fmt: skip
_FILE = re.compile(r"(https://[^/?#]+/[^?#]*files/[^/?#:]+)")  # one of its Files API, named without the way to its bytes


class GoogleOmni(Resource):
    name = "google-omni"
    modalities = ("video",)
    path = "/interactions"
    takes_webhook = True

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        parts: list[dict[str, object]] = [{"type": "text", "text": request.prompt}]
        if request.image_url is not None:
            media_type, data = decode_picture(request.image_url)
            parts.append({"type": "image", "mime_type": media_type, "data": data})
        seconds = whole(request.duration)
        wanted = said(
            type="video", aspect_ratio=request.aspect_ratio, resolution=request.resolution,
            duration=None if seconds is None else f"{seconds}s", delivery="uri",
        )  # fmt: skip
        body = {**request.extra, "model": target.upstream_model, "input": parts, "background": True, "store": True, "response_format": wanted}
        if webhook_url is not None:
            body["webhook_config"] = {"uris": [webhook_url]}
        return post_json("/interactions", body)

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("status"), _STATES, reply)
        if state in (QUEUED, PROCESSING, CANCELLED):
            return Polled(state=state)
        results, said_instead = _output(job)
        if state == COMPLETED and results:
            return Polled(state=COMPLETED, progress=1.0, results=results)
        error = job.get("error") or next((found for step in _steps(job) if (found := step.get("error"))), None)
        message = text_of(dig(error, "message")) or said_instead or f"the provider ended with {text_of(job['status'])}"
        if state == COMPLETED:  # it answered in words instead
            return Polled(state=FAILED, failure=failure(message, "content_rejected"))
        return Polled(state=FAILED, failure=rejection(message, dig(error, "code"), ("safety", "prohibited", "policy")))

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return post_json(f"/interactions/{segment(handle)}/cancel", {})


def _steps(interaction: dict) -> list[dict]:
    steps = interaction.get("steps")
    return [step for step in steps if type(step) is dict] if type(steps) is list else []


def _output(interaction: dict) -> tuple[tuple[Result, ...], str]:
    """The videos, and what it said in words, of the steps that are the model's."""
    results: list[Result] = []
    words: list[str] = []
    for step in _steps(interaction):
        content = step.get("content")
        if step.get("type") != "model_output" or type(content) is not list:
            continue
        for part in content:
            if dig(part, "type") == "text":
                words.append(text_of(dig(part, "text")))
            elif dig(part, "type") == "video" and (result := _video(part)) is not None:
                results.append(result)
    return tuple(results[:MAX_RESULTS]), " ".join(words)


def _video(part: dict) -> Result | None:
    media_type = text_of(part.get("mime_type"))
    if data := decoded(part.get("data")):
        return Result(data=data, media_type=media_type)
    uri = text_of(part.get("uri"))
    file = _FILE.fullmatch(uri)
    return result_at(f"{file[1]}:download?alt=media" if file else uri, "video", media_type)
