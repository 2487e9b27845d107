"""Another aigate: POST /videos/generations, /audio/music or /3d/generations, GET /jobs/{id}, POST /jobs/{id}/cancel.

Read from our own interface (api/jobs.py, api/job_record.py): sure. So one gateway can stand before another, and money is counted at both. A
submission carries its key: sent again, it is answered with the same job. The other gateway posts to `webhook_url` when a job is done.
"""

from __future__ import annotations

from aigate.core.job import FIELDS, JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import CANCELLED, COMPLETED, FAILED, PROCESSING, QUEUED, HttpReply, HttpRequest, Polled, Result
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Resource,
    bad_reply,
    dig,
    failure,
    fraction,
    number_of,
    post_json,
    result_at,
    segment,
    state_of,
    text_of,
)

_PATHS = {"video": "/videos/generations", "music": "/audio/music", "3d": "/3d/generations"}
_STATES = {"queued": QUEUED, "processing": PROCESSING, "running": PROCESSING, "completed": COMPLETED, "failed": FAILED, "cancelled": CANCELLED}
_REJECTED = "content_rejected"


class Aigate(Resource):
    name = "aigate"
    modalities = ("video", "music", "3d")
    path = "/jobs"
    has_idempotency_key = True
    takes_webhook = True

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        asked = {field: value for field in FIELDS if (value := getattr(request, field)) is not None}
        body = {**request.extra, **asked, "model": target.upstream_model, "prompt": request.prompt}
        if webhook_url is not None:
            body["webhook_url"] = webhook_url
        written = post_json(_PATHS[request.modality], body)
        return HttpRequest(method="POST", url=written.url, headers={**written.headers, "idempotency-key": key}, body=written.body)

    def _read_job(self, job: dict, reply: HttpReply, handle: str, target: Target) -> Polled:
        state = state_of(job.get("status"), _STATES, reply)
        if state == FAILED:
            code = text_of(job.get("error_code"))
            if code == CANCELLED:
                return Polled(state=CANCELLED)
            return Polled(state=FAILED, failure=failure(job.get("error"), code if code == _REJECTED else "provider_failed"))
        if state != COMPLETED:
            return Polled(state=state, progress=fraction(job.get("progress")))
        result = job.get("result")
        files = dig(result, "files")
        entries = files if type(files) is list and files else [result]
        found = (_file(entry, target.endpoint) for entry in entries[:MAX_RESULTS])
        results = tuple(file for file in found if file is not None)
        if not results:
            raise bad_reply(reply, "a completed job without a file")
        return Polled(state=COMPLETED, progress=1.0, results=results)

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return HttpRequest(method="POST", url=f"/jobs/{segment(handle)}/cancel")


def _file(entry: object, modality: str) -> Result | None:
    facts = {"duration_s": number_of(dig(entry, "duration")), "resolution": text_of(dig(entry, "resolution")) or None}
    return result_at(dig(entry, "url"), modality, dig(entry, "media_type"), **facts)
