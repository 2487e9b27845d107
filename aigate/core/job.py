"""The nouns of a job: what is asked (JobRequest), what a model takes of it (JobLimits, rows of data), and the plan that follows from both.

`plan_job` is the same for every provider: it fills in defaults, moves values to the nearest allowed one, drops what the model does not
take (each with a warning), and says how many units the job can cost at most. Dialects (aigate/jobdialects) write what it made. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from aigate.core.call import Warning

VIDEO, MUSIC, MODEL_3D = "video", "music", "3d"
MODALITIES = (VIDEO, MUSIC, MODEL_3D)

# What a job is priced by. Units are counted in thousandths, so that 5.4 seconds are a whole number.
SECOND, ITEM, IMAGE, CREDIT = "second", "item", "image", "credit"


class JobRequest(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a caller asks for, under the names of the public interface. None: not said. `extra`: fields that only the provider knows."""

    modality: str
    prompt: str = ""
    negative_prompt: str | None = None
    duration: float | None = None  # seconds
    aspect_ratio: str | None = None  # 16:9
    resolution: str | None = None  # 720p, 1280x720
    image_url: str | None = None  # of the picture to start from; http(s) or data:
    lyrics: str | None = None
    is_instrumental: bool | None = None
    lyrics_optimizer: bool | None = None
    audio: bool | None = None  # a video with sound
    seed: int | None = None
    extra: dict[str, Any] = {}


FIELDS = tuple(name for name in JobRequest.__struct_fields__ if name not in ("modality", "prompt", "extra"))


class JobLimits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one model takes and how it is priced. Part of a row of catalog/job_models.json."""

    takes: frozenset[str] = frozenset()  # of FIELDS; others are dropped with a warning
    takes_extra: frozenset[str] | None = None  # names passed on untouched; None: all of them
    needs: frozenset[str] = frozenset()  # besides the prompt: refused (400) without them (image_url)
    needs_prompt: bool = True
    durations_s: tuple[float, ...] = ()  # allowed ones, the nearest is used; () = any within the range
    duration_range_s: tuple[float, float] | None = None
    values: Mapping[str, tuple[str, ...]] = {}  # allowed values of aspect_ratio and resolution; another one becomes the default
    defaults: Mapping[str, Any] = {}  # sent, and priced, where nothing is asked
    image_as: str = "url"  # how the provider wants image_url: url | data (the gateway fetches it; JobRequest.image_url is then a data: URL)
    unit: str = ITEM  # what is priced: second | item | image | credit
    price_by: tuple[str, ...] = ()  # fields whose values choose the rate: ("resolution", "audio") → second:720p+audio
    max_units: float = 1  # of a unit that the request does not say (credits, seconds where the model chooses): the most it can be


class Planned(msgspec.Struct, frozen=True):
    """`request` as it will be sent; `units` at most, rate name → thousandths."""

    request: JobRequest
    units: Mapping[str, int]
    warnings: tuple[Warning, ...] = ()
