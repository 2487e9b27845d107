"""What each family is asked and answers, after its reference pages, in our own words and numbers."""

import base64
from dataclasses import dataclass, field
from typing import Any

PNG = "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n....").decode()
PICTURE = "https://pics.example/boat.png"
CLIP = base64.b64encode(b"\x00\x00\x00\x18ftypmp42").decode()


@dataclass(frozen=True)
class Submission:
    """`asks` and what is written: a JSON body, or the fields of a form."""

    model: str
    asks: dict[str, Any]
    url: str
    body: dict[str, Any] | None = None
    form: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    webhook_url: str | None = None
    is_media: bool = False


@dataclass(frozen=True)
class Family:
    modality: str
    submissions: list[Submission]
    accepted: Any  # the reply to a submission
    handle: str
    poll: tuple[str, str]  # method and path
    cancel: tuple[str, str] | None
    states: list[tuple[Any, str]] = field(default_factory=list)  # replies to a poll → where the job stands
    progress: tuple[Any, float] | None = None
    results: list[tuple[Any, str]] = field(default_factory=list)  # replies of a finished job → where its file is
    failures: list[tuple[Any, str, str]] = field(default_factory=list)  # replies → the code, and a piece of the message
    target_model: str = "m"


OPENAI_VIDEOS = Family(
    modality="video",
    submissions=[
        Submission("sora-2", {"prompt": "a boat", "duration": 8.0, "aspect_ratio": "16:9", "resolution": "720p"}, "/videos",
                   form={"model": "sora-2", "prompt": "a boat", "seconds": "8", "size": "1280x720"}),
        Submission("sora-2-pro", {"prompt": "a boat", "aspect_ratio": "9:16", "resolution": "1080p"}, "/videos",
                   form={"model": "sora-2-pro", "prompt": "a boat", "size": "1080x1920"}),
        Submission("sora-2-pro", {"prompt": "a boat", "resolution": "1792x1024", "extra": {"quality": "high"}}, "/videos",
                   form={"model": "sora-2-pro", "prompt": "a boat", "size": "1792x1024", "quality": "high"}),
        Submission("sora-2", {"prompt": "move it", "image_url": PNG}, "/videos",
                   form={"model": "sora-2", "prompt": "move it"}, files={"input_reference": b"\x89PNG\r\n\x1a\n...."}),
        Submission("sora-2", {"prompt": "move it", "image_url": PICTURE}, "/videos",
                   form={"model": "sora-2", "prompt": "move it", "input_reference[image_url]": PICTURE}),
    ],
    accepted={"id": "video_68a", "object": "video", "status": "queued", "progress": 0, "seconds": "8", "size": "1280x720", "model": "sora-2"},
    handle="video_68a",
    poll=("GET", "/videos/video_68a"),
    cancel=("DELETE", "/videos/video_68a"),
    states=[({"id": "v", "status": "queued"}, "queued"), ({"id": "v", "status": "in_progress"}, "processing"), ({"status": "cancelled"}, "cancelled")],
    progress=({"status": "in_progress", "progress": 33}, 0.33),
    results=[({"id": "v", "status": "completed", "progress": 100, "seconds": "8", "size": "1280x720"}, "/videos/video_68a/content")],
    failures=[
        ({"status": "failed", "error": {"code": "moderation_blocked", "message": "not this"}}, "content_rejected", "not this"),
        ({"status": "failed", "error": {"code": "internal_error", "message": "it broke"}}, "provider_failed", "it broke"),
        ({"status": "failed", "error": None}, "provider_failed", "no reason"),
    ],
)

_OPERATION = "models/veo-3.1-generate-001/operations/op7"
GOOGLE_VEO = Family(
    modality="video",
    submissions=[
        Submission("veo-3.1-generate-001", {"prompt": "a boat", "duration": 8.0, "aspect_ratio": "9:16", "resolution": "1080p", "audio": True, "seed": 4,
                    "negative_prompt": "fog"}, "/models/veo-3.1-generate-001:predictLongRunning",
                   body={"instances": [{"prompt": "a boat"}], "parameters": {"aspectRatio": "9:16", "durationSeconds": 8, "resolution": "1080p",
                         "negativePrompt": "fog", "seed": 4, "generateAudio": True}}),
        Submission("veo-3.1-generate-001", {"prompt": "move", "image_url": PNG, "extra": {"sampleCount": 2}}, "/models/veo-3.1-generate-001:predictLongRunning",
                   body={"instances": [{"prompt": "move", "image": {"bytesBase64Encoded": PNG.partition(",")[2], "mimeType": "image/png"}}],
                         "parameters": {"sampleCount": 2}}),
    ],
    accepted={"name": _OPERATION},
    handle=_OPERATION,
    poll=("GET", "/" + _OPERATION),
    cancel=None,
    states=[({"name": _OPERATION}, "processing"), ({"name": _OPERATION, "done": False}, "processing")],
    results=[
        ({"done": True, "response": {"generateVideoResponse": {"generatedSamples": [{"video": {"uri": "https://h.example/v1beta/files/a:download?alt=media"}}]}}},
         "https://h.example/v1beta/files/a:download?alt=media"),
        ({"done": True, "response": {"videos": [{"gcsUri": "gs://bucket/clip.mp4", "mimeType": "video/mp4"}]}}, "https://storage.googleapis.com/bucket/clip.mp4"),
        ({"done": True, "response": {"videos": [{"bytesBase64Encoded": CLIP, "mimeType": "video/mp4"}]}}, "data"),
    ],
    failures=[
        ({"done": True, "error": {"code": 3, "message": "bad aspect"}}, "provider_failed", "bad aspect"),
        ({"done": True, "response": {"generateVideoResponse": {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": ["a person"]}}}, "content_rejected", "a person"),
        ({"done": True, "response": {}}, "provider_failed", "names no video"),
    ],
)

GOOGLE_OMNI = Family(
    modality="video",
    submissions=[
        Submission("gemini-omni-1.2-flash", {"prompt": "a boat", "duration": 6.0, "aspect_ratio": "16:9", "resolution": "720p"}, "/interactions",
                   webhook_url="https://gate.example/hook/1",
                   body={"model": "gemini-omni-1.2-flash", "input": [{"type": "text", "text": "a boat"}], "background": True, "store": True,
                         "response_format": {"type": "video", "aspect_ratio": "16:9", "resolution": "720p", "duration": "6s", "delivery": "uri"},
                         "webhook_config": {"uris": ["https://gate.example/hook/1"]}}),
        Submission("gemini-omni-1.2-flash", {"prompt": "move", "image_url": PNG}, "/interactions",
                   body={"model": "gemini-omni-1.2-flash", "background": True, "store": True, "response_format": {"type": "video", "delivery": "uri"},
                         "input": [{"type": "text", "text": "move"}, {"type": "image", "mime_type": "image/png", "data": PNG.partition(",")[2]}]}),
    ],
    accepted={"id": "v1_abc", "object": "interaction", "status": "in_progress"},
    handle="v1_abc",
    poll=("GET", "/interactions/v1_abc"),
    cancel=("POST", "/interactions/v1_abc/cancel"),
    states=[({"status": "queued"}, "queued"), ({"status": "in_progress"}, "processing"), ({"status": "cancelled"}, "cancelled")],
    results=[
        ({"status": "completed", "steps": [{"type": "user_input", "content": [{"type": "video", "uri": "https://x.example/mine.mp4"}]}, {"type": "thought"},
          {"type": "model_output", "content": [{"type": "video", "mime_type": "video/mp4", "uri": "https://h.example/v1beta/files/f9"}]}]},
         "https://h.example/v1beta/files/f9:download?alt=media"),
        ({"status": "completed", "steps": [{"type": "model_output", "content": [{"type": "video", "data": CLIP}]}]}, "data"),
    ],
    failures=[
        ({"status": "completed", "steps": [{"type": "model_output", "content": [{"type": "text", "text": "I will not."}]}]}, "content_rejected", "I will not."),
        ({"status": "failed", "error": {"code": "internal", "message": "it broke"}}, "provider_failed", "it broke"),
        ({"status": "failed", "steps": [{"type": "model_output", "error": {"message": "unsafe"}}], "error": {"code": "SAFETY"}}, "content_rejected", "ended with"),
        ({"status": "budget_exceeded"}, "provider_failed", "budget_exceeded"),
    ],
)

RUNWAY = Family(
    modality="video",
    submissions=[
        Submission("gen4.5", {"prompt": "a boat", "duration": 5.0, "aspect_ratio": "16:9", "seed": 7}, "/text_to_video",
                   body={"model": "gen4.5", "promptText": "a boat", "ratio": "1280:720", "duration": 5, "seed": 7}),
        Submission("veo3.1", {"prompt": "a boat", "aspect_ratio": "9:16", "resolution": "1080p", "audio": False, "duration": 8.0}, "/text_to_video",
                   body={"model": "veo3.1", "promptText": "a boat", "ratio": "1080:1920", "duration": 8, "audio": False}),
        Submission("gen4_turbo", {"image_url": PICTURE, "aspect_ratio": "21:9", "extra": {"contentModeration": {"publicFigureThreshold": "low"}}},
                   "/image_to_video", body={"model": "gen4_turbo", "promptImage": PICTURE, "ratio": "1584:672", "contentModeration": {"publicFigureThreshold": "low"}}),
    ],
    accepted={"id": "17f20503-6c24-4c16-946b-35dbbce2af2f"},
    handle="17f20503-6c24-4c16-946b-35dbbce2af2f",
    poll=("GET", "/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f"),
    cancel=("DELETE", "/tasks/17f20503-6c24-4c16-946b-35dbbce2af2f"),
    states=[({"status": "PENDING"}, "queued"), ({"status": "THROTTLED"}, "queued"), ({"status": "RUNNING"}, "processing"), ({"status": "CANCELLED"}, "cancelled")],
    progress=({"status": "RUNNING", "progress": 0.25}, 0.25),
    results=[({"status": "SUCCEEDED", "output": ["https://cdn.example/t.mp4?_jwt=x"]}, "https://cdn.example/t.mp4?_jwt=x")],
    failures=[
        ({"status": "FAILED", "failure": "not allowed", "failureCode": "SAFETY.INPUT.TEXT"}, "content_rejected", "not allowed"),
        ({"status": "FAILED", "failure": "it broke", "failureCode": "INTERNAL.BAD_OUTPUT.CODE01"}, "provider_failed", "it broke"),
    ],
)

LUMA = Family(
    modality="video",
    submissions=[
        Submission("ray-3.2", {"prompt": "a boat", "duration": 5.0, "aspect_ratio": "16:9", "resolution": "720p", "extra": {"video": {"loop": True}}}, "/generations",
                   body={"model": "ray-3.2", "type": "video", "prompt": "a boat", "aspect_ratio": "16:9",
                         "video": {"loop": True, "resolution": "720p", "duration": "5s"}}),
        Submission("ray-3.2", {"prompt": "move", "duration": 10.0, "image_url": PICTURE}, "/generations",
                   body={"model": "ray-3.2", "type": "video", "prompt": "move",
                         "video": {"duration": "10s", "keyframes": [{"url": PICTURE}], "keyframe_indexes": [0]}}),
    ],
    accepted={"id": "d290f1ee", "type": "video", "state": "queued", "model": "ray-3.2", "output": [], "failure_reason": None, "failure_code": None},
    handle="d290f1ee",
    poll=("GET", "/generations/d290f1ee"),
    cancel=None,
    states=[({"id": "d", "state": "queued"}, "queued"), ({"id": "d", "state": "processing", "output": None}, "processing")],
    results=[({"state": "completed", "output": [{"type": "video", "url": "https://s3.example/o.mp4?X-Amz-Expires=3600"}]}, "https://s3.example/o.mp4?X-Amz-Expires=3600")],
    failures=[
        ({"state": "failed", "failure_code": "content_moderated", "failure_reason": "not this"}, "content_rejected", "not this"),
        ({"state": "failed", "failure_code": "generation_failed", "failure_reason": "it broke"}, "provider_failed", "it broke"),
    ],
)

REPLICATE = Family(
    modality="video",
    submissions=[
        Submission("google/veo-3.1", {"prompt": "a boat", "duration": 6.0, "audio": True, "extra": {"enhance": False}}, "/predictions",
                   webhook_url="https://gate.example/hook/2",
                   body={"version": "google/veo-3.1", "input": {"prompt": "a boat", "duration": 6, "generate_audio": True, "enhance": False},
                         "webhook": "https://gate.example/hook/2", "webhook_events_filter": ["completed"]}),
    ],
    accepted={"id": "gm3qorzdhgbf", "status": "starting", "input": {"prompt": "a boat"}, "output": None, "error": None},
    handle="gm3qorzdhgbf",
    poll=("GET", "/predictions/gm3qorzdhgbf"),
    cancel=("POST", "/predictions/gm3qorzdhgbf/cancel"),
    states=[({"status": "starting"}, "queued"), ({"status": "processing"}, "processing"), ({"status": "canceled"}, "cancelled")],
    results=[
        ({"status": "succeeded", "output": "https://replicate.delivery/x/out.mp4"}, "https://replicate.delivery/x/out.mp4"),
        ({"status": "succeeded", "output": ["https://replicate.delivery/1.mp4", "https://replicate.delivery/2.mp4"]}, "https://replicate.delivery/1.mp4"),
        ({"status": "succeeded", "output": {"mesh": {"glb": "https://replicate.delivery/m.glb"}, "seed": 3}}, "https://replicate.delivery/m.glb"),
        ({"status": "succeeded", "output": "data:video/mp4;base64," + CLIP}, "data"),
    ],
    failures=[
        ({"status": "failed", "error": "NSFW content detected"}, "content_rejected", "NSFW"),
        ({"status": "failed", "error": "CUDA out of memory"}, "provider_failed", "CUDA"),
        ({"status": "aborted", "error": None}, "provider_failed", "no reason"),
        ({"status": "succeeded", "output": "just words"}, "provider_failed", "no file"),
    ],
)

_FAL = "/fal-ai/kling-video/requests/764cabcf"
FAL = Family(
    modality="video",
    target_model="fal-ai/kling-video/v4/text-to-video",
    submissions=[
        Submission("fal-ai/kling-video/v4/text-to-video", {"prompt": "a boat", "duration": 5.0, "aspect_ratio": "16:9"},
                   "/fal-ai/kling-video/v4/text-to-video?fal_webhook=https%3A%2F%2Fgate.example%2Fhook%2F3", webhook_url="https://gate.example/hook/3",
                   body={"prompt": "a boat", "duration": 5, "aspect_ratio": "16:9"}),
        Submission("fal-ai/trellis", {"image_url": PICTURE, "seed": 1, "extra": {"mesh_simplify": 0.9}}, "/fal-ai/trellis",
                   body={"image_url": PICTURE, "seed": 1, "mesh_simplify": 0.9}),
    ],
    accepted={"request_id": "764cabcf", "status_url": "https://elsewhere.example/steal", "response_url": "https://elsewhere.example/steal", "queue_position": 0},
    handle="764cabcf",
    poll=("GET", _FAL + "/status"),
    cancel=("PUT", _FAL + "/cancel"),
    states=[({"status": "IN_QUEUE", "queue_position": 3}, "queued"), ({"status": "IN_PROGRESS", "logs": None}, "processing"), ({"status": "COMPLETED"}, "processing")],
    results=[
        ({"video": {"url": "https://v3.fal.media/f.mp4", "content_type": "video/mp4", "file_size": 9}, "seed": 2}, "https://v3.fal.media/f.mp4"),
        ({"thumbnail": {"url": "https://v3.fal.media/t.jpg"}, "video": {"url": "https://v3.fal.media/f.mp4"}}, "https://v3.fal.media/f.mp4"),
        ({"videos": [{"url": "https://v3.fal.media/1.mp4"}]}, "https://v3.fal.media/1.mp4"),
        ({"video": {"url": "/files/own.mp4"}}, "/files/own.mp4"),
    ],
    failures=[({"status": "COMPLETED", "error": "the runner died", "error_type": "runner_error"}, "provider_failed", "the runner died")],
)

MESHY = Family(
    modality="3d",
    submissions=[
        Submission("meshy-6", {"prompt": "a mask", "extra": {"topology": "quad"}}, "/v2/text-to-3d",
                   body={"mode": "preview", "topology": "quad", "ai_model": "meshy-6", "prompt": "a mask"}),
        Submission("meshy-6", {"prompt": "", "extra": {"mode": "refine", "preview_task_id": "018a"}}, "/v2/text-to-3d",
                   body={"mode": "refine", "preview_task_id": "018a", "ai_model": "meshy-6"}),
        Submission("meshy-6", {"prompt": "in wood", "image_url": PICTURE}, "/v1/image-to-3d",
                   body={"ai_model": "meshy-6", "image_url": PICTURE, "texture_prompt": "in wood"}),
    ],
    accepted={"result": "018a210d-8ba4"},
    handle="/v2/text-to-3d/018a210d-8ba4",
    poll=("GET", "/v2/text-to-3d/018a210d-8ba4"),
    cancel=None,
    states=[({"status": "PENDING"}, "queued"), ({"status": "IN_PROGRESS"}, "processing"), ({"status": "CANCELED"}, "cancelled")],
    progress=({"status": "IN_PROGRESS", "progress": 50}, 0.5),
    results=[({"status": "SUCCEEDED", "progress": 100, "model_urls": {"fbx": "https://a.example/m.fbx", "glb": "https://a.example/m.glb", "obj": ""}}, "https://a.example/m.glb")],
    failures=[({"status": "FAILED", "task_error": {"message": "no such shape"}}, "provider_failed", "no such shape"), ({"status": "EXPIRED"}, "provider_failed", "no reason")],
)

AIGATE = Family(
    modality="video",
    submissions=[
        Submission("sim/video", {"prompt": "a boat", "duration": 5.0, "aspect_ratio": "16:9", "extra": {"style": "flat"}}, "/videos/generations",
                   webhook_url="https://gate.example/hook/9",
                   body={"model": "sim/video", "prompt": "a boat", "duration": 5.0, "aspect_ratio": "16:9", "style": "flat", "webhook_url": "https://gate.example/hook/9"}),
        Submission("sim/music", {"modality": "music", "prompt": "lo-fi", "is_instrumental": True}, "/audio/music",
                   body={"model": "sim/music", "prompt": "lo-fi", "is_instrumental": True}),
        Submission("sim/3d", {"modality": "3d", "image_url": PICTURE}, "/3d/generations", body={"model": "sim/3d", "prompt": "", "image_url": PICTURE}),
    ],
    accepted={"id": "job_1a22", "object": "job", "status": "queued", "modality": "video", "model": "sim/video", "result": None, "error": None},
    handle="job_1a22",
    poll=("GET", "/jobs/job_1a22"),
    cancel=("POST", "/jobs/job_1a22/cancel"),
    states=[({"status": "queued"}, "queued"), ({"status": "processing"}, "processing"), ({"status": "failed", "error": "cancelled", "error_code": "cancelled"}, "cancelled")],
    progress=({"status": "processing", "progress": 0.4}, 0.4),
    results=[
        ({"status": "completed", "result": {"url": "https://hub.example/v1/files/jobs/job_1/video.mp4/public?token=x", "media_type": "video/mp4", "duration": 5.0}},
         "https://hub.example/v1/files/jobs/job_1/video.mp4/public?token=x"),
        ({"status": "completed", "result": {"url": "https://hub.example/a", "files": [{"url": "https://hub.example/b"}]}}, "https://hub.example/b"),
    ],
    failures=[
        ({"status": "failed", "error": "not this", "error_code": "content_rejected"}, "content_rejected", "not this"),
        ({"status": "failed", "error": "it broke", "error_code": "provider_lost"}, "provider_failed", "it broke"),
    ],
)

ELEVENLABS = Family(
    modality="music",
    submissions=[
        Submission("music_v2_5", {"prompt": "lo-fi", "duration": 30.5, "is_instrumental": True, "extra": {"output_format": "mp3_44100_128"}}, "/music", is_media=True,
                   body={"output_format": "mp3_44100_128", "model_id": "music_v2_5", "prompt": "lo-fi", "force_instrumental": True, "music_length_ms": 30500}),
    ],
    accepted=b"", handle="", poll=("", ""), cancel=None,
)  # fmt: skip

STABILITY = Family(
    modality="music",
    submissions=[
        Submission("stable-audio-2.5", {"prompt": "rain", "duration": 20.0, "seed": 5, "extra": {"output_format": "wav"}}, "/v2beta/audio/stable-audio-2/text-to-audio",
                   is_media=True, form={"model": "stable-audio-2.5", "prompt": "rain", "duration": "20", "seed": "5", "output_format": "wav"}),
        Submission("stable-fast-3d", {"modality": "3d", "image_url": PNG}, "/v2beta/3d/stable-fast-3d", is_media=True, files={"image": b"\x89PNG\r\n\x1a\n...."}),
    ],
    accepted=b"", handle="", poll=("", ""), cancel=None,
)  # fmt: skip

FAMILIES = {
    "openai-videos": OPENAI_VIDEOS, "google-veo": GOOGLE_VEO, "google-omni": GOOGLE_OMNI, "runway": RUNWAY, "luma": LUMA,
    "replicate": REPLICATE, "fal": FAL, "meshy": MESHY, "elevenlabs-music": ELEVENLABS, "stability": STABILITY, "aigate": AIGATE,
}  # fmt: skip
POLLED = {name: family for name, family in FAMILIES.items() if family.handle}
SYNCHRONOUS = {name: family for name, family in FAMILIES.items() if not family.handle}

# How each family refuses: status, headers, body, the kind it is and what of it is kept.
ERRORS = [
    ("openai-videos", 400, {}, {"error": {"message": "size is wrong", "type": "invalid_request_error", "param": "size"}}, "rejected", "size is wrong"),
    ("google-veo", 429, {"retry-after": "7"}, {"error": {"code": 429, "message": "quota", "status": "RESOURCE_EXHAUSTED"}}, "rate_limited", "quota"),
    ("google-omni", 401, {}, [{"error": {"code": 401, "message": "API key not valid", "status": "UNAUTHENTICATED"}}], "auth", "not valid"),
    ("runway", 400, {}, {"error": "Validation of body failed", "issues": []}, "rejected", "Validation"),
    ("luma", 402, {}, {"detail": "Insufficient credits."}, "auth", "credits"),
    ("luma", 422, {}, {"detail": "image_ref[0]: failed to fetch URL"}, "rejected", "failed to fetch"),
    ("replicate", 422, {}, {"title": "Input validation failed", "detail": "- input.prompt is required", "status": 422}, "rejected", "prompt is required"),
    ("replicate", 429, {}, {"detail": "Request was throttled.", "status": 429}, "rate_limited", "throttled"),
    ("fal", 422, {}, {"detail": [{"loc": ["body", "prompt"], "msg": "field required", "type": "value_error.missing"}]}, "rejected", "field required"),
    ("elevenlabs-music", 401, {}, {"detail": {"status": "invalid_api_key", "message": "Invalid API key"}}, "auth", "Invalid API key"),
    ("stability", 403, {}, {"id": "a", "name": "content_moderation", "errors": ["flagged"]}, "auth", "flagged"),
    ("meshy", 400, {}, {"message": "Invalid ai_model"}, "rejected", "Invalid ai_model"),
    ("meshy", 503, {}, b"<html><title>Service Unavailable</title></html>", "overloaded", "Service Unavailable"),
]
