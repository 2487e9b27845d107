"""Turns the genai-prices data set into our price file: exact integer rates, and rules that say which model names they are for.

Run by `make catalog` (tools/catalog.py), never by a running gateway. It is given the data set's objects and reads no file, no clock.
What it cannot say exactly in our terms is left out and counted, never guessed; where several prices can apply, the dearest does.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any

from aigate.catalog.prices import PriceEntry
from aigate.core.price import Rate, rates_for, usd_to_rate
from aigate.core.target import Price

# Our provider name → theirs. A router's partners are one provider of ours: the caller may name one after a colon.
SOURCES: Mapping[str, Sequence[str]] = {
    "openai": ["openai"],
    "anthropic": ["anthropic"],
    "google": ["google"],
    "moonshot": ["moonshotai"],
    "deepseek": ["deepseek"],
    "groq": ["groq"],
    "mistral": ["mistral"],
    "xai": ["x-ai"],
    "openrouter": ["openrouter"],
    "cerebras": ["cerebras"],
    "zai": ["zai"],
    "together": ["together"],
    "fireworks": ["fireworks"],
}
ROUTERS: Mapping[str, str] = {"huggingface": "huggingface_"}  # ours → how their partners' ids begin

_CLASSES = {
    "input_mtok": "input",
    "output_mtok": "output",
    "cache_read_mtok": "cached_input",
    "cache_write_mtok": "cache_write",
    "input_audio_mtok": "audio_input",
    "output_audio_mtok": "audio_output",
    "requests_kcount": "request",
}
# Not charged per token of a chat or embeddings call, or a part of a class whose own rate stands in for it.
_IGNORED = frozenset({"web_searches_kcount", "storage_searches_kcount", "cache_audio_read_mtok", "cache_write_1h_mtok"})


class Compiled:
    """Entries by provider of ours, and what was left out, by reason."""

    def __init__(self) -> None:
        self.providers: dict[str, list[PriceEntry]] = {}
        self.skipped: Counter[str] = Counter()


def compile_prices(providers: Iterable[Any], today: datetime.date) -> Compiled:
    theirs = {provider.id: provider for provider in providers}
    compiled = Compiled()
    for ours, ids in SOURCES.items():
        models = [model for source_id in ids for model in theirs[source_id].models]
        entries = [_entry(model, today, compiled.skipped) for model in models]
        compiled.providers[ours] = [entry for entry in entries if entry is not None]
    for ours, prefix in ROUTERS.items():
        partners = {name.removeprefix(prefix): provider for name, provider in theirs.items() if name.startswith(prefix)}
        compiled.providers[ours] = _router_entries(partners, today, compiled.skipped)
    return compiled


def _entry(model: Any, today: datetime.date, skipped: Counter[str]) -> PriceEntry | None:
    rules = _rules(model.match)
    if rules is None:
        skipped["match rule we cannot say"] += 1
        return None
    in_force = _in_force(model.prices, today)
    prices = [_price(price, skipped, free_name=model.id.endswith(":free")) for price in in_force]
    if not prices or any(price is None for price in prices):
        return None
    price = dearest([price for price in prices if price is not None])
    return PriceEntry(
        id=model.id,
        match=rules,
        rates=dict(price.rates),
        tiers=tuple((above, dict(tier.rates)) for above, tier in price.tiers),
        services=_services(model, price, today, skipped),
        context=model.context_window or 0,
    )


def _rules(clause: Any) -> list[str | list[str]] | None:
    """A list of which one must hold; a list inside it must hold whole. None where it is nested deeper."""
    kind = type(clause).__name__
    if kind == "ClauseOr":
        parts = [_rules(part) for part in clause.or_]
        return None if any(part is None for part in parts) else [rule for part in parts if part is not None for rule in part]
    if kind == "ClauseAnd":
        rules = [_rule(part) for part in clause.and_]
        return None if None in rules else [[rule for rule in rules if rule is not None]]
    rule = _rule(clause)
    return None if rule is None else [rule]


def _rule(clause: Any) -> str | None:
    """One clause as its first letter's rule: = equals, ^ starts with, $ ends with, * contains, ~ regular expression."""
    marks = {"equals": "=", "starts_with": "^", "ends_with": "$", "contains": "*", "regex": "~"}
    for field, mark in marks.items():
        text = getattr(clause, field, None)
        if text is not None:
            return mark + (text if mark == "~" else text.lower())
    return None


def _in_force(prices: Any, today: datetime.date) -> list[Any]:
    """The price that holds today and, where the hour decides, all that hold at some hour."""
    if not isinstance(prices, list):
        return [prices]
    dated = [p.prices for p in prices if hasattr(p.constraint, "start_date") and p.constraint.start_date <= today]
    hourly = [p.prices for p in prices if hasattr(p.constraint, "start_time")]
    always = [p.prices for p in prices if p.constraint is None]
    return (dated or always)[-1:] + hourly


def _price(source: Any, skipped: Counter[str], *, free_name: bool = False) -> Price | None:
    """None where a class is charged that a call of ours cannot be metered by."""
    given = {key: value for key, value in vars(source).items() if value is not None and key not in _IGNORED}
    unknown = sorted(key for key in given if key not in _CLASSES)
    if unknown:
        skipped[f"charged by {unknown[0]}"] += 1
        return None
    if not given and not free_name:
        skipped["no price given"] += 1
        return None
    starts = sorted({tier.start for value in given.values() for tier in getattr(value, "tiers", ())})
    tiers = tuple((start, Price(rates=_rates(given, start + 1))) for start in starts)
    return Price(rates=_rates(given, 0), tiers=tiers)


def _rates(given: Mapping[str, Any], input_tokens: int) -> dict[str, Rate]:
    rates = {}
    for key, value in given.items():
        usd = getattr(value, "base", value)
        for tier in getattr(value, "tiers", ()):
            if input_tokens > tier.start:
                usd = tier.price
        rates[_CLASSES[key]] = usd_to_rate(usd, 1000) if key == "requests_kcount" else usd_to_rate(usd)
    return rates


def _services(model: Any, standard: Price, today: datetime.date, skipped: Counter[str]) -> dict[str, dict[str, Any]]:
    """service_tier → what differs from the standard price."""
    services: dict[str, dict[str, Any]] = {}
    for variant in model.price_variants or ():
        name = variant.when.get("service_tier")
        starts = getattr(variant.constraint, "start_date", today)
        if name is None or len(variant.when) > 1 or starts > today or name in services:
            continue
        if not vars(variant.prices):
            continue  # the standard price under its own name
        price = _price(variant.prices, skipped)
        if price is not None:
            tiers = [[above, {**rates_for(standard, above + 1), **tier.rates}] for above, tier in price.tiers]
            services[name] = {"rates": {**standard.rates, **price.rates}, "tiers": tiers}
    return services


def dearest(prices: Sequence[Price]) -> Price:
    """A price that no call would find cheaper than any of these: class by class and tier by tier the highest rate."""
    if len(prices) == 1:
        return prices[0]
    starts = sorted({above for price in prices for above, _ in price.tiers})
    tiers = tuple((above, Price(rates=_highest([rates_for(p, above + 1) for p in prices]))) for above in starts)
    return Price(rates=_highest([price.rates for price in prices]), tiers=tiers)


def _highest(many: Sequence[Mapping[str, Rate]]) -> dict[str, Rate]:
    parents = {"cached_input": "input", "cache_write": "input", "audio_input": "input", "audio_output": "output"}
    highest: dict[str, Rate] = {}
    for name in {name: None for rates in many for name in rates}:
        offers = [rates.get(name) or rates.get(parents.get(name, "")) or (0, 1) for rates in many]
        highest[name] = max(offers, key=lambda rate: Fraction(*rate))
    return highest


def _router_entries(partners: Mapping[str, Any], today: datetime.date, skipped: Counter[str]) -> list[PriceEntry]:
    """`model:partner` at that partner's price; `model` and `model:policy` at the dearest partner's, as the router chooses."""
    named: list[PriceEntry] = []
    offers: dict[str, list[PriceEntry]] = {}
    for partner, provider in partners.items():
        for model in provider.models:
            entry = _entry(model, today, skipped)
            if entry is None:
                continue
            if any(not isinstance(rule, str) or rule[0] != "=" for rule in entry.match):
                skipped["router rule that is not a name"] += 1
                continue
            entry.id, entry.match = f"{entry.id}:{partner}", [f"{rule}:{partner}" for rule in entry.match]
            named.append(entry)
            for rule in entry.match:
                offers.setdefault(str(rule).rpartition(":")[0], []).append(entry)
    open_routes = []
    for rule, entries in offers.items():
        price = dearest([entry.price() for entry in entries])
        open_routes.append(
            PriceEntry(
                id=rule[1:],
                match=[rule, *(f"{rule}:{policy}" for policy in ("fastest", "cheapest", "preferred"))],
                rates=dict(price.rates),
                tiers=tuple((above, dict(tier.rates)) for above, tier in price.tiers),
                context=min((entry.context for entry in entries if entry.context), default=0),
            )
        )
    return named + open_routes


def suspicious_drops(old: Mapping[str, Sequence[PriceEntry]], new: Mapping[str, Sequence[PriceEntry]]) -> list[str]:
    """Prices that fell to nothing or by nine tenths: far more often a mistake in the data than a gift."""
    drops = []
    for provider, entries in new.items():
        before = {entry.id: entry.rates for entry in old.get(provider, ())}
        for entry in entries:
            for name, (picodollars, per) in before.get(entry.id, {}).items():
                was = Fraction(picodollars, per)
                now = Fraction(*(entry.rates.get(name) or (0, 1))) if name in ("input", "output") or name in entry.rates else was
                if was and now * 10 <= was:
                    drops.append(f"{provider}/{entry.id}: {name} fell from {float(was):g} to {float(now):g} picodollars a unit")
    return drops
