"""ElevenLabs music: POST /music, answered with the audio itself.

Read from elevenlabs/elevenlabs-python (music/client.py, 2026) and elevenlabs.io/docs/api-reference/music/compose, 2026-11-28: sure of the
route, lengths (3 s to 10 min) and that a seed cannot go with a prompt; `lyrics_text` is of the newer models and seen in their tools only.
The key travels as xi-api-key (the provider's row). Nothing to poll, nothing to cancel, no idempotency key: a connection that breaks
before the reply leaves it unknown whether it was made and billed.
"""

from __future__ import annotations

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.jobdialects.dialect import COMPLETED, HttpReply, HttpRequest, Polled, Result, Submitted
from aigate.jobdialects.family import Synchronous, check_media, post_json, said

_MS = 1000


class ElevenLabsMusic(Synchronous):
    name = "elevenlabs-music"
    modalities = ("music",)

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        body = said(
            model_id=target.upstream_model, prompt=request.prompt, lyrics_text=request.lyrics, force_instrumental=request.is_instrumental,
            music_length_ms=None if request.duration is None else round(request.duration * _MS),
        )  # fmt: skip
        asked = post_json("/music", {**request.extra, **body})
        return HttpRequest(method="POST", url=asked.url, headers={**asked.headers, "accept": "audio/*"}, body=asked.body, is_media=True)

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        check_media(reply)
        media_type = reply.headers.get("content-type", "").partition(";")[0].strip() or "audio/mpeg"
        return Submitted(handle="", polled=Polled(state=COMPLETED, progress=1.0, results=(Result(media_type=media_type),)))
