"""Google Veo: long-running operations, as the Gemini API had them and as the Gemini Enterprise Agent Platform (Vertex AI) has them.

POST /models/{model}:predictLongRunning, then GET /{operation} or, for an operation of a project, POST /models/{model}:fetchPredictOperation.
Read from google-genai 3.4.0 (_operations_converters.py), docs.cloud.google.com/…/veo/3-1-generate and apidog.com/blog (2026-11-06): sure of
the replies; generateAudio and sampleCount are the Platform's alone. The Gemini API's own Veo models ended on 2026-10-22: there it serves
gateways of the same form. For the Platform, base_url is https://REGION-aiplatform.googleapis.com/v1/projects/P/locations/R/publishers/google,
api_key "none" and headers {authorization = "Bearer TOKEN"}: an access token, which lasts an hour. No idempotency key, no webhooks, no
cancelling by an API key.
"""

from __future__ import annotations

import re

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import COMPLETED, FAILED, PROCESSING, HttpReply, HttpRequest, Polled, Result, Submitted
from aigate.jobdialects.family import (
    MAX_RESULTS,
    Family,
    bad_reply,
    decode_picture,
    decoded,
    dig,
    failure,
    fraction,
    post_json,
    read_object,
    required,
    result_at,
    said,
    segment,
    text_of,
    whole,
)

_OPERATION = re.compile(r"[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*")
_BUCKETS = "https://storage.googleapis.com/"


class GoogleVeo(Family):
    name = "google-veo"
    modalities = ("video",)

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        instance: dict[str, object] = {"prompt": request.prompt}
        if request.image_url is not None:
            media_type, data = decode_picture(request.image_url)
            instance["image"] = {"bytesBase64Encoded": data, "mimeType": media_type}
        parameters = said(
            aspectRatio=request.aspect_ratio, durationSeconds=whole(request.duration), resolution=request.resolution,
            negativePrompt=request.negative_prompt, seed=request.seed, generateAudio=request.audio,
        )  # fmt: skip
        body = {"instances": [instance], "parameters": {**request.extra, **parameters}}
        return post_json(f"/models/{segment(target.upstream_model)}:predictLongRunning", body)

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        operation = read_object(reply)
        name = required(operation.get("name"), reply, "name of an operation")
        if not _OPERATION.fullmatch(name) or ".." in name:
            raise bad_reply(reply, "the name of the operation is none")
        return Submitted(handle=name, polled=_stand(operation))

    def write_poll(self, handle: str, target: Target) -> HttpRequest:
        if handle.startswith("projects/"):
            return post_json(f"/models/{segment(target.upstream_model)}:fetchPredictOperation", {"operationName": handle})
        return HttpRequest(url="/" + handle)

    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Polled:
        return _stand(read_object(reply))


def _stand(operation: dict) -> Polled:
    error = operation.get("error")
    if type(error) is dict:
        return Polled(state=FAILED, failure=failure(error.get("message")))
    if operation.get("done") is not True:
        return Polled(state=PROCESSING, progress=fraction(dig(operation, "metadata", "progressPercent"), of=100))
    said_there = dig(operation, "response", "generateVideoResponse") or operation.get("response")
    results = tuple(result for result in (*_samples(said_there), *_videos(said_there)) if result is not None)
    if results:
        return Polled(state=COMPLETED, progress=1.0, results=results[:MAX_RESULTS])
    reasons = dig(said_there, "raiMediaFilteredReasons")
    if type(reasons) is list and reasons:
        return Polled(state=FAILED, failure=failure("; ".join(map(text_of, reasons)), "content_rejected"))
    return Polled(state=FAILED, failure=failure("the provider says it is done, but names no video"))


def _samples(response: object) -> list[Result | None]:
    samples = dig(response, "generatedSamples")
    return [_video(dig(sample, "video")) for sample in samples] if type(samples) is list else []


def _videos(response: object) -> list[Result | None]:
    videos = dig(response, "videos")
    return [_video(video) for video in videos] if type(videos) is list else []


def _video(video: object) -> Result | None:
    media_type = text_of(dig(video, "mimeType") or dig(video, "encoding"))
    if data := decoded(dig(video, "bytesBase64Encoded") or dig(video, "encodedVideo")):
        return Result(data=data, media_type=media_type)
    bucket = text_of(dig(video, "gcsUri"))  # where the caller named a storageUri: reached if it is public
    return result_at(_BUCKETS + bucket[5:] if bucket.startswith("gs://") else dig(video, "uri"), "video", media_type)
