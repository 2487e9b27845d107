"""OpenAI videos: POST /videos (a form), GET /videos/{id}, GET /videos/{id}/content, DELETE /videos/{id}.

Read from openai-python 3.54.0 (types/video*.py, resources/videos.py), 2026-11-28: sure. The vendor shut its own service on 2026-09-24
(developers.openai.com/api/docs/models/sora-2); the form lives on in servers and gateways that offer it (vLLM-Omni, LiteLLM, resellers),
which is whom this is for. No idempotency key, no webhook in the request, and a list without anything of ours to look for.
"""

from __future__ import annotations

import re

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled, Result
from aigate.jobdialects.family import (
    Resource,
    decode_picture,
    dig,
    fraction,
    multipart,
    number_of,
    rejection,
    said,
    segment,
    state_of,
    text_of,
)

_STATES = {"queued": QUEUED, "in_progress": PROCESSING, "completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED, "canceled": CANCELLED}
_LINES = re.compile(r"(\d{3,4})p?")
_ASPECT = re.compile(r"(\d{1,3}):(\d{1,3})")


class OpenAIVideos(Resource):
    name = "openai-videos"
    modalities = ("video",)
    path = "/videos"

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        seconds = None if request.duration is None else f"{request.duration:g}"  # text, as the API has it
        fields = said(model=target.upstream_model, prompt=request.prompt, seconds=seconds, size=_size(request), seed=request.seed)
        files: dict[str, tuple[str, bytes]] = {}
        if request.image_url is not None and request.image_url.startswith("data:"):
            files["input_reference"] = decode_picture(request.image_url)
        elif request.image_url is not None:
            fields["input_reference[image_url]"] = request.image_url
        return multipart("/videos", {**request.extra, **fields}, files, key)

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("status"), _STATES, reply)
        if state == FAILED:
            code = dig(job, "error", "code")
            return Polled(state=FAILED, failure=rejection(dig(job, "error", "message"), code, ("moderation", "content_policy", "safety")))
        if state != COMPLETED:
            return Polled(state=state, progress=fraction(job.get("progress"), of=100))
        fetch = HttpRequest(url=f"/videos/{segment(handle)}/content", is_media=True)
        size = text_of(job.get("size")) or None
        return Polled(state=COMPLETED, progress=1.0, results=(Result(request=fetch, duration_s=number_of(job.get("seconds")), resolution=size),))

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        # Documented for finished videos; servers of the same form stop running ones by it.
        return HttpRequest(method="DELETE", url=f"/videos/{segment(handle)}")


def _size(request: JobRequest) -> str | None:
    """1280x720 of 720p and 16:9; a size that is written out goes as it is."""
    lines = _LINES.fullmatch(request.resolution or "")
    shape = _ASPECT.fullmatch(request.aspect_ratio or "16:9")
    if lines is None or shape is None:
        return request.resolution
    short, wide, high = int(lines[1]), max(int(shape[1]), 1), max(int(shape[2]), 1)
    long = round(short * max(wide, high) / min(wide, high) / 2) * 2
    return f"{long}x{short}" if wide >= high else f"{short}x{long}"
