"""Inputs of services that run other people's models (fal, Replicate): every model has its own names, so what is asked goes under the
public ones unless the model's row says how it is written there. Pure.
"""

from __future__ import annotations

from aigate.core.job import FIELDS, JobLimits, JobRequest

# Where nearly all models agree on another name than ours.
_NAMES = {"audio": "generate_audio"}


def model_input(request: JobRequest, limits: JobLimits | None) -> dict[str, object]:
    """`limits.written` maps a field to its name there, or to `name={format}` where the value has to be a text of a certain form
    (`duration={:g}s`)."""
    written = {} if limits is None else limits.written
    values: dict[str, object] = dict(request.extra)
    if request.prompt:
        values["prompt"] = request.prompt
    for field in FIELDS:
        value = getattr(request, field)
        if value is None:
            continue
        name, is_text, form = written.get(field, _NAMES.get(field, field)).partition("=")
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        values[name] = form.format(value) if is_text else value
    return values
