"""What is known of media models whose calls are jobs: what each takes, and its price, from our own file with the page each row was read from.

Pure but for reading its own data file. An operator's [models."…"] wins over both (load.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import msgspec

from aigate.core.job import JobLimits
from aigate.core.price import usd_to_rate, with_id
from aigate.core.target import Price

FILE = Path(__file__).with_name("job_models.json")
MILLIUNITS = 1000


class JobModelRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One line of job_models.json, under a slug or a glob of slugs (the first that matches). `usd`: rate name → dollars a unit
    ("second:720p+audio": "0.40"; one without variant is for all others), as text so that it is exact."""

    modality: str
    usd: Mapping[str, str] = {}
    job: JobLimits = JobLimits()
    description: str = ""
    created: int = 0
    doc: str = ""  # pages of the interface and of the price, with their date

    def price(self) -> Price | None:
        if not self.usd:
            return None
        return with_id(Price(rates={name: usd_to_rate(usd, MILLIUNITS) for name, usd in self.usd.items()}, source=self.doc))


def load_job_models() -> dict[str, JobModelRow]:
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, JobModelRow])


def find_job_model(rows: Mapping[str, JobModelRow], slug: str) -> JobModelRow | None:
    return rows.get(slug) or next((row for pattern, row in rows.items() if fnmatchcase(slug, pattern)), None)
