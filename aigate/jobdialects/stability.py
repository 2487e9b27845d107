"""Stability: POST /v2beta/audio/stable-audio-2/text-to-audio and /v2beta/3d/{model}, forms that are answered with the media itself.

Read from platform.stability.ai/docs/api-reference as copied by doc-en.302.ai (2025-09-29) and the fields of its Node SDK
(stability-ai 0.7.0, 3d/stable-fast-3d): sure of routes and fields, not of what changed since. Its video (image-to-video) ended in 2025.
Both 3D models are made from a picture alone. Nothing to poll or cancel, no idempotency key.
"""

from __future__ import annotations

from aigate.core.job import MODEL_3D, JobRequest
from aigate.core.target import Target
from aigate.errors import ClientError
from aigate.jobdialects.dialect import COMPLETED, HttpReply, HttpRequest, Polled, Result, Submitted
from aigate.jobdialects.family import Synchronous, check_media, decode_picture, multipart, said, segment, whole


class Stability(Synchronous):
    name = "stability"
    modalities = ("music", "3d")

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        if request.modality == MODEL_3D:
            if request.image_url is None:
                raise ClientError("image_url: missing; this model is made from a picture", param="image_url")
            asked = multipart(f"/v2beta/3d/{segment(target.upstream_model)}", request.extra, {"image": decode_picture(request.image_url)}, key)
            accept = "model/gltf-binary, application/json"
        else:
            fields = said(model=target.upstream_model, prompt=request.prompt, duration=whole(request.duration), seed=request.seed)
            asked = multipart("/v2beta/audio/stable-audio-2/text-to-audio", {**request.extra, **fields}, {}, key)
            accept = "audio/*"
        return HttpRequest(method="POST", url=asked.url, headers={**asked.headers, "accept": accept}, body=asked.body, is_media=True)

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        check_media(reply)
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip()
        if media_type in ("", "application/octet-stream"):
            media_type = "model/gltf-binary" if target.endpoint == MODEL_3D else "audio/mpeg"
        return Submitted(handle="", polled=Polled(state=COMPLETED, progress=1.0, results=(Result(media_type=media_type),)))
