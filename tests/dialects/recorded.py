"""Recorded traffic of real providers and the targets to read it with. The folder is named by AIGATE_RECORDINGS; tests skip without."""

from __future__ import annotations

import json
import os
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from aigate.core.target import Model, Provider, Quirks, Target
from aigate.providers.table import ROWS

FOLDER = os.environ.get("AIGATE_RECORDINGS", "")
ALL = bool(os.environ.get("AIGATE_LAWS_ALL"))  # every recording; else a sample that changes nothing of what is covered
needs_recordings = pytest.mark.skipif(not FOLDER, reason="AIGATE_RECORDINGS names no folder of recordings")


class _Head:
    path, query = "/v1/chat/completions", ""
    headers: dict[bytes, bytes] = {}


HEAD = _Head()


def target(quirks: Quirks | None = None, *, upstream_model: str = "upstream", dialect: str = "openai-chat") -> Target:
    """A target with these quirks and nothing else to it."""
    return Target(
        slug="mock/" + upstream_model,
        provider=Provider(name="mock", base_url="http://mock.invalid/v1"),
        upstream_model=upstream_model,
        model=Model(slug="mock/" + upstream_model),
        quirks=quirks or Quirks(),
        dialect=dialect,
        url_path="/v1",
        endpoint="chat",
    )


def recorded_target(record: dict[str, Any]) -> Target:
    """The target that a recording was made with, by the rows of today."""
    row = ROWS.get("openai" if record["provider"] == "azure" else record["provider"])
    model = str(record["request"].get("model", ""))
    quirks = next((quirks for glob, quirks in row.quirks if fnmatchcase(model, glob)), Quirks()) if row else Quirks()
    return target(quirks, upstream_model=model or "upstream")


@cache
def chat_records() -> list[dict[str, Any]]:
    """Every recorded pair of the OpenAI chat format, errors and duplicates included."""
    if not FOLDER:
        return []
    lines = (line for path in sorted(Path(FOLDER).glob("*.jsonl")) for line in path.open(encoding="utf-8"))
    records = [json.loads(line) for line in lines if "chat/completions" in line]
    return [record for record in records if record["path"].endswith("chat/completions")]


def plain_replies() -> list[dict[str, Any]]:
    return [record for record in chat_records() if record["status"] == 200 and not record["stream"]]


def streams() -> list[dict[str, Any]]:
    return [record for record in chat_records() if record["status"] == 200 and record["stream"]]
