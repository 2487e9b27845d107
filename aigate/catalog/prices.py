"""Prices by model name: reads the compiled price file and finds the entry a name falls under.

Holds no policy: an unknown name is None, what follows from that is the catalogue's. A provider's entries are decoded when it is first
asked for, as the file holds many more providers than one gateway uses. Pure but for reading its own data file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Raw

from aigate.core.price import Rate, with_id
from aigate.core.target import Price

FILE = Path(__file__).with_name("prices.json")

# gpt-5.2-20251211 is gpt-5.2-2025-12-11 (some clients write dates without dashes).
_COMPACT_DATE = re.compile(r"-(20\d\d)(\d\d)(\d\d)$")


class Service(msgspec.Struct, omit_defaults=True):
    """What a service tier (flex, priority, …) charges instead."""

    rates: dict[str, Rate]
    tiers: list[tuple[int, dict[str, Rate]]] = []


class PriceEntry(msgspec.Struct, omit_defaults=True):
    """One line of the price file. `match`: rules of which one must hold for a lower-case name (a list inside must hold whole);
    a rule's first character says how: = equals, ^ starts with, $ ends with, * contains, ~ regular expression."""

    id: str
    match: list[str | list[str]]
    rates: dict[str, Rate]
    tiers: tuple[tuple[int, dict[str, Rate]], ...] = ()
    services: dict[str, Service] = {}
    context: int = 0  # window in tokens, as the source has it

    def price(self, source: str = "") -> Price:
        services = {name: _price(service.rates, service.tiers, source) for name, service in self.services.items()}
        return with_id(msgspec.structs.replace(_price(self.rates, self.tiers, source), services=services))


class PriceFile(msgspec.Struct):
    source: str  # the data set and its version
    effective: str  # the day whose prices these are
    providers: dict[str, Raw]


def _price(rates: dict[str, Rate], tiers: list | tuple, source: str) -> Price:
    steps = tuple((above, Price(rates=tier)) for above, tier in tiers)
    return with_id(Price(rates=rates, tiers=steps, source=source))


class PriceBook:
    """The price file, provider by provider as they are asked for."""

    def __init__(self, data: bytes):
        file = msgspec.json.decode(data, type=PriceFile)
        self.source = f"{file.source}, {file.effective}"
        self.effective = file.effective
        self._raw = file.providers
        self._entries: dict[str, list[PriceEntry]] = {}

    def entries(self, provider: str) -> list[PriceEntry]:
        entries = self._entries.get(provider)
        if entries is None:
            raw = self._raw.get(provider)
            entries = [] if raw is None else msgspec.json.decode(raw, type=list[PriceEntry])
            self._entries[provider] = entries
        return entries

    def find(self, provider: str, name: str) -> PriceEntry | None:
        """The first entry whose rules the name fulfils, as the data set's own order means it."""
        name = name.lower()
        found = self._match(provider, name)
        if found is None and (dashed := _COMPACT_DATE.sub(r"-\1-\2-\3", name)) != name:
            found = self._match(provider, dashed)
        return found

    def _match(self, provider: str, name: str) -> PriceEntry | None:
        for entry in self.entries(provider):
            for rule in entry.match:
                if _holds(rule, name) if isinstance(rule, str) else all(_holds(part, name) for part in rule):
                    return entry
        return None

    def prices(self, provider: str) -> Iterator[Price]:
        for entry in self.entries(provider):
            yield entry.price(self.source)


def _holds(rule: str, name: str) -> bool:
    mark, text = rule[0], rule[1:]
    if mark == "=":
        return name == text
    if mark == "^":
        return name.startswith(text)
    if mark == "$":
        return name.endswith(text)
    if mark == "*":
        return text in name
    return re.search(text, name) is not None


def load_price_book() -> PriceBook:
    return PriceBook(FILE.read_bytes())
