"""Replicate: POST /predictions, GET /predictions/{id}, POST /predictions/{id}/cancel. All modalities: it runs any model.

Read from replicate.com/docs/reference/http and /topics/webhooks, 2026-11-28: sure. `version` takes owner/name as well as a version's own id.
Without `Prefer: wait` it answers at once. Output files are deleted after an hour. The provider posts to `webhook` (signed as Standard
Webhooks: HMAC-SHA256 over id, time and body). No idempotency key; its list of predictions shows nothing of ours to look for.
"""

from __future__ import annotations

from collections.abc import Iterator

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Resource,
    failure,
    post_json,
    result_at,
    segment,
    state_of,
    text_of,
)
from aigate.jobdialects.inputs import model_input

_STATES = {
    "starting": QUEUED, "processing": PROCESSING, "succeeded": COMPLETED, "failed": FAILED, "canceled": CANCELLED, "aborted": FAILED,
}  # fmt: skip
_REJECTED = ("nsfw", "safety", "sensitive", "flagged", "content policy", "e005")
_MAX_DEPTH = 4


class Replicate(Resource):
    name = "replicate"
    modalities = ("video", "music", "3d")
    path = "/predictions"
    takes_webhook = True

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        body: dict[str, object] = {"version": target.upstream_model, "input": model_input(request, target.model.job)}
        if webhook_url is not None:
            body |= {"webhook": webhook_url, "webhook_events_filter": ["completed"]}
        return post_json("/predictions", body)

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("status"), _STATES, reply)
        if state == FAILED:
            message = text_of(job.get("error"))
            is_rejected = any(mark in message.lower() for mark in _REJECTED)  # it has no codes: the model's own words are all there is
            return Polled(state=FAILED, failure=failure(message, "content_rejected" if is_rejected else "provider_failed"))
        if state != COMPLETED:
            return Polled(state=state)
        found = (result_at(url, target.endpoint) for url in _urls(job.get("output"), 0))
        results = tuple(result for result in found if result is not None)[:MAX_RESULTS]
        if not results:
            return Polled(state=FAILED, failure=failure("the model ended well, but its output has no file"))
        return Polled(state=COMPLETED, progress=1.0, results=results)

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return HttpRequest(method="POST", url=f"/predictions/{segment(handle)}/cancel")


def _urls(output: object, depth: int) -> Iterator[str]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(output, str):
        if output.startswith(("https://", "http://", "data:")):
            yield output
    elif type(output) is dict or type(output) is list:
        for inner in output.values() if type(output) is dict else output:
            yield from _urls(inner, depth + 1)
