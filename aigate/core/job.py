"""The nouns of a job: what is asked (JobRequest), what a model takes of it (JobLimits, rows of data), and the plan that follows from both.

`plan_job` is the same for every provider: it fills in defaults, moves values to the nearest allowed one, drops what the model does not
take (each with a warning), and says how many units the job can cost at most. Dialects (aigate/jobdialects) write what it made. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import msgspec

from aigate.core.call import Warning
from aigate.errors import ClientError

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
    whole_seconds: bool = False  # it takes no parts of a second
    values: Mapping[str, tuple[str, ...]] = {}  # allowed values of aspect_ratio and resolution; another one becomes the default
    defaults: Mapping[str, Any] = {}  # sent, and priced, where nothing is asked
    written: Mapping[str, str] = {}  # field → its name at a service of many models, or `name={format}` for a text (jobdialects/inputs.py)
    image_as: str = "url"  # how the provider wants image_url: url | data (the gateway fetches it; JobRequest.image_url is then a data: URL)
    unit: str = ITEM  # what is priced: second | item | image | credit
    price_by: tuple[str, ...] = ()  # fields whose values choose the rate: ("resolution", "audio") → second:720p+audio
    max_units: float = 1  # of a unit that the request does not say (credits, seconds where the model chooses): the most it can be


class Planned(msgspec.Struct, frozen=True):
    """`request` as it will be sent; `units` at most, rate name → thousandths."""

    request: JobRequest
    units: Mapping[str, int]
    warnings: tuple[Warning, ...] = ()


def plan_job(asked: JobRequest, limits: JobLimits) -> Planned:
    """What will be sent of `asked`, and the most it can cost in units. Raises ClientError for what the model cannot do without."""
    request = msgspec.structs.replace(asked, extra=dict(asked.extra))
    warnings: list[Warning] = []
    if limits.needs_prompt and not request.prompt.strip():
        raise ClientError("prompt: missing; say what is to be made.", param="prompt")
    for name in sorted(limits.needs):
        if getattr(request, name) is None:
            raise ClientError(f"{name}: this model needs it.", param=name)
    for name in FIELDS:
        if getattr(request, name) is not None and name not in limits.takes:
            setattr(request, name, None)
            warnings.append(Warning("dropped", name, "unsupported"))
    if limits.takes_extra is not None:
        for name in [name for name in request.extra if name not in limits.takes_extra]:
            del request.extra[name]
            warnings.append(Warning("dropped", name, "unsupported"))
    for name, value in limits.defaults.items():
        if name in FIELDS and getattr(request, name) is None:
            setattr(request, name, value)
        elif name not in FIELDS:
            request.extra.setdefault(name, value)
    for name, allowed in limits.values.items():
        _fit_value(request, name, allowed, limits, warnings)
    _fit_duration(request, limits, warnings)
    return Planned(request, _units(request, limits), tuple(warnings))


def _fit_value(request: JobRequest, name: str, allowed: tuple[str, ...], limits: JobLimits, warnings: list[Warning]) -> None:
    asked = getattr(request, name)
    if asked is None or asked in allowed:
        return
    by_letters = {value.lower().removesuffix("p"): value for value in allowed}  # 720 and 720P are 720p
    value = by_letters.get(asked.lower().removesuffix("p"))
    if value is None:
        value = limits.defaults.get(name, allowed[0])
        warnings.append(Warning("clamped", name, "the model takes " + " ".join(allowed), asked, value))
    setattr(request, name, value)


def _fit_duration(request: JobRequest, limits: JobLimits, warnings: list[Warning]) -> None:
    asked = request.duration
    if asked is None:
        return
    fitted = asked
    if limits.durations_s:
        fitted = min(limits.durations_s, key=lambda allowed: (abs(allowed - asked), allowed))
    elif limits.duration_range_s is not None:
        low, high = limits.duration_range_s
        fitted = min(max(asked, low), high)
    if limits.whole_seconds:
        fitted = float(max(1, round(fitted)))
    if fitted != asked:
        warnings.append(Warning("clamped", "duration", "outside what the model takes", asked, fitted))
        request.duration = fitted


def _units(request: JobRequest, limits: JobLimits) -> dict[str, int]:
    """Of a duration nobody said, the longest there is."""
    amount = limits.max_units
    if limits.unit == SECOND and request.duration is not None:
        amount = request.duration
    elif limits.unit == SECOND:
        amount = max((amount, *limits.durations_s, *(limits.duration_range_s or ())))
    return {unit_name(request, limits): ceil(amount * 1000)}


def unit_name(request: JobRequest, limits: JobLimits) -> str:
    """The rate that a request falls under: the unit, then the values that choose the price (a flag by its name, where it is set)."""
    parts = []
    for name in limits.price_by:
        value = getattr(request, name) if name in FIELDS else request.extra.get(name)
        if value is True:
            parts.append(name)
        elif value is not None and value is not False:
            parts.append(f"{value:g}" if isinstance(value, float) else str(value))
    return limits.unit + (":" + "+".join(parts) if parts else "")
