"""docs/media.md: who makes videos, music and 3D models, what each model takes and costs, and how the simulated one behaves. From the code's tables."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from aigate.catalog.job_models import JobModelRow, load_job_models
from aigate.core.job import JobLimits
from aigate.jobdialects import JOB_DIALECTS
from aigate.providers.table import ROWS
from aigate.sim.media_behaviours import KINDS, MEDIA_PARTS

_HEAD = """# Media providers

Made by `make docs` from the code's own tables (`tools/media.py`). Videos, music and 3D models are jobs: a provider is asked, watched and
fetched from by its *job format*, which a provider row names (`jobs`), beside or instead of a chat format.

## Providers

Live when the variable is set. Any other service of a known format is a provider of your own:

```toml
[providers.clips]
jobs = "openai-videos"                  # the format
base_url = "https://clips.example/v1"
api_key = "env:CLIPS_KEY"
idempotency_header = "idempotency-key"  # if it takes one: a job whose submission was lost is then sent again, safely

[models."clips/fast-1"]
modality = "video"
usd_per_second = 0.05                   # or usd_per_item, usd_per_credit
```
"""

_FORMATS = """
## Formats

None of these vendors' references has an idempotency key, so a job whose submission got no answer is never sent again: it ends as
`submission_unknown`, and its money stays reserved until `aigate ledger resolve`. A provider's webhook is a hint to look, never believed, and
asked for only where the gateway has an https address (`server.public_url`). Results are fetched at once, as their links expire.
"""

_MODELS = """
## Models

What is not in *takes* is dropped with a warning; a value outside what is allowed becomes the nearest or the default, with a warning. Fields the
provider alone knows are passed on. A price with variants is chosen by what is asked; **yours**: it depends on your plan, state it in
`[models."…"]`. A `*` stands for any provider or model. Any other name of a live provider works once it has a price.

| model | makes | takes | length in s | dollars |
|---|---|---|---|---|
"""

_SIM = """
## The simulated provider

`sim/video`, `sim/music` and `sim/3d` need no key and make real little files that say they are simulated: an MP4 (H.264), a WAV, a GLB. Their
behaviour is in the name, also several (`sim/video+slow-3s+hook-twice`); what it took and charged is at `GET /sim/submissions` of its socket. It
speaks fal's queue under `/fal` and OpenAI videos under `/v1/videos`, and keeps its jobs over restarts (`aigate sim --jobs FILE`).

| name | |
|---|---|
"""


def page() -> str:
    lines = [_HEAD, "| provider | format | key |", "|---|---|---|", *_providers(), _FORMATS, *_formats()]
    lines += [_MODELS.rstrip("\n"), *_models(), _SIM.rstrip("\n"), *_behaviours()]
    return "\n".join(lines) + "\n"


def _providers() -> Iterator[str]:
    for row in ROWS.values():
        if row.jobs:
            key = " or ".join(f"`{name}`" for name in row.key_variable.split()) or "none needed"
            yield f"| `{row.name}/…` | `{row.jobs}` | {key} |"


def _formats() -> Iterator[str]:
    for name, dialect in JOB_DIALECTS.items():
        yield f"### `{name}`\n"
        source = inspect.getdoc(inspect.getmodule(type(dialect))) or ""
        yield f"{', '.join(dialect.modalities)}{'; calls a webhook of the request' if dialect.takes_webhook else ''}. {source}\n"


def _models() -> Iterator[str]:
    for slug, row in load_job_models().items():
        if not slug.startswith("sim/") or "+" not in slug:
            yield f"| `{slug}` | {row.modality} | {', '.join(_takes(row.job))} | {_lengths(row.job)} | {_price(row)} |"


def _takes(limits: JobLimits) -> Iterator[str]:
    if limits.needs_prompt:
        yield "**prompt**"
    else:
        yield "prompt"
    for name in sorted(limits.takes - {"duration"}):
        values = limits.values.get(name)
        text = f"{name} ({' '.join(values)})" if values else name
        yield f"**{text}**" if name in limits.needs else text


def _lengths(limits: JobLimits) -> str:
    default = limits.defaults.get("duration")
    if limits.durations_s:
        text = ", ".join(f"{length:g}" for length in limits.durations_s)
    elif limits.duration_range_s:
        text = f"{limits.duration_range_s[0]:g}–{limits.duration_range_s[1]:g}"
    else:
        return "—"
    return text if default is None else f"{text} ({default:g})"


def _price(row: JobModelRow) -> str:
    unit = f"{'an' if row.job.unit[0] in 'aeiou' else 'a'} {row.job.unit}"
    if not row.usd:
        return f"**yours**, {unit}"
    variants = [f"{name.partition(':')[2].replace('+', ' ')}: {usd}" for name, usd in row.usd.items() if ":" in name]
    return f"{', '.join(variants)}{', else ' if variants else ''}{row.usd[row.job.unit]} {unit}"


def _behaviours() -> Iterator[str]:
    for name, says in KINDS.items():
        yield f"| `sim/{name}` | {says} |"
    for part in MEDIA_PARTS:
        yield f"| `sim/{part.example}` | {part.says} |"
