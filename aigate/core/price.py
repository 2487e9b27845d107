"""Money: what usage costs at a price, and the few ways an amount is written down.

Integers only: a rate is (picodollars, per so many units), an amount is nano-dollars, and each usage class is rounded up once.
Prices come from `catalog/`; how much is held before a call is `core/bounds.py`. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from math import gcd

import msgspec

from aigate.core.target import Price
from aigate.core.usage import Usage

Rate = tuple[int, int]  # (picodollars, per this many units)

_PICO_PER_USD = 10**12
_NANO_PER_USD = 10**9
NANOUSD_PER_CENT = 10**7
_TOKENS_PER_MTOK = 10**6

# A class without a rate of its own costs what the total it is part of costs.
_PARENT = {"cached_input": "input", "cache_write": "input", "audio_input": "input", "audio_output": "output"}

_UNITS_MARK = b'{"priced_units":'


class _PricedUnits(msgspec.Struct):
    units: dict[str, int] = msgspec.field(name="priced_units")
    reported: msgspec.Raw = msgspec.Raw(b"null")


def price_usage(price: Price | None, usage: Usage) -> int:
    """Nano-dollars of one attempt. No price costs nothing: whether unpriced models may run is decided before the call."""
    if price is None:
        return 0
    input_left, output_left = usage.input_tokens, usage.output_tokens
    rates = rates_for(price, input_left) if price.tiers else price.rates
    cost_nanousd = 0
    # Parts are taken off their total in a fixed order and never beyond it, so a reply whose parts overlap (cached audio) or
    # exceed the total is billed for exactly the total's units.
    if usage.cached_tokens or usage.cache_write_tokens or usage.audio_input_tokens:
        for units, name in (
            (usage.cached_tokens, "cached_input"),
            (usage.cache_write_tokens, "cache_write"),
            (usage.audio_input_tokens, "audio_input"),
        ):
            units = min(units, input_left)
            input_left -= units
            cost_nanousd += _cost(rates, name, units)
    if usage.audio_output_tokens:
        units = min(usage.audio_output_tokens, output_left)
        output_left -= units
        cost_nanousd += _cost(rates, "audio_output", units)
    rate = rates.get("input")
    if rate is not None:
        cost_nanousd -= -input_left * rate[0] // (rate[1] * 1000)  # as `_cost`, without its look for a parent class
    rate = rates.get("output")
    if rate is not None:
        cost_nanousd -= -output_left * rate[0] // (rate[1] * 1000)
    if "request" in rates and (usage.input_tokens or usage.output_tokens):
        cost_nanousd += _cost(rates, "request", 1)
    return cost_nanousd


def price_units(price: Price | None, units: Mapping[str, int]) -> int:
    """Nano-dollars of a job: `units` by rate name, in thousandths (core/job.py). A variant without a rate of its own costs what its
    unit costs ("second:4k" as "second")."""
    if price is None:
        return 0
    return sum(_cost(price.rates, name if name in price.rates else name.partition(":")[0], amount) for name, amount in units.items())


def units_of(raw_usage: bytes) -> Mapping[str, int]:
    """What a job's row says it was priced by; of any other row nothing."""
    if not raw_usage.startswith(_UNITS_MARK):
        return {}
    try:
        return msgspec.json.decode(raw_usage, type=_PricedUnits).units
    except msgspec.DecodeError:
        return {}  # a provider's own words


def units_usage(units: Mapping[str, int], reported: bytes) -> bytes:
    """A row's raw usage of a job: the units it is priced by, and the provider's own JSON where it gave any."""
    return msgspec.json.encode(_PricedUnits(dict(units), msgspec.Raw(reported or b"null")))


def rates_for(price: Price, input_tokens: int) -> Mapping[str, Rate]:
    """The rates of the tier that a call of so much input reaches; it prices the whole call."""
    rates = price.rates
    for above, tier in price.tiers:
        if input_tokens > above:
            rates = tier.rates
    return rates


def service_price(price: Price, service_tier: str | None) -> Price:
    """The price of the service tier that a call asked for or a reply says it got; the standard one where nothing differs.

    It has an id of its own, so a row that names it needs no more to be recomputed."""
    return price.services.get(service_tier, price) if service_tier else price


def variant_price(price: Price, name: str) -> Price:
    """The price for calls of that kind; `price` itself where it has no such variant."""
    return price.variants.get(name, price)


def with_variant(price: Price, name: str, factor: Decimal) -> Price:
    """The price and those of its service tiers, each with a variant that charges `factor` of it. A factor of 1 needs none."""
    if factor == 1:
        return price
    services = {tier: with_variant(each, name, factor) for tier, each in price.services.items()}
    return msgspec.structs.replace(price, services=services, variants={**price.variants, name: _scaled(price, factor)})


def every_price(price: Price) -> Iterator[Price]:
    """The price and all that may be charged in its place."""
    yield price
    yield from price.variants.values()
    for service in price.services.values():
        yield from every_price(service)


def _scaled(price: Price, factor: Decimal) -> Price:
    numerator, denominator = factor.as_integer_ratio()
    rates = {name: _reduced(rate[0] * numerator, rate[1] * denominator) for name, rate in price.rates.items()}
    tiers = tuple((above, _scaled(tier, factor)) for above, tier in price.tiers)
    return with_id(Price(rates=rates, tiers=tiers, source=price.source))


def _cost(rates: Mapping[str, Rate], name: str, units: int) -> int:
    if not units:
        return 0
    rate = rates.get(name) or rates.get(_PARENT.get(name, ""))
    if rate is None:
        return 0
    return -(-units * rate[0] // (rate[1] * 1000))  # picodollars to nano-dollars, rounded up


def price_id(price: Price) -> str:
    """The hash of what a price charges: equal rates have equal ids wherever they came from, so a bill can always be recomputed."""
    return "prc_" + hashlib.sha256(msgspec.json.encode(_content(price), order="deterministic")).hexdigest()[:32]


def with_id(price: Price) -> Price:
    return msgspec.structs.replace(price, id=price_id(price))


def _content(price: Price) -> list[object]:
    return [dict(price.rates), [[above, _content(tier)] for above, tier in price.tiers]]


def usd_to_rate(usd: Decimal | str | float, units: int = _TOKENS_PER_MTOK) -> Rate:
    """Dollars for so many units (a million tokens unless said) → the same as an exact rate in lowest terms.

    A float counts as the decimal it prints as. ValueError for what is not a price."""
    try:
        amount = Decimal(str(usd))
    except InvalidOperation:
        raise ValueError(f"{usd!r} is not a number") from None
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"a price must be a finite number and not negative, not {usd}")
    numerator, denominator = amount.as_integer_ratio()
    return _reduced(numerator * _PICO_PER_USD, denominator * units)


def _reduced(picodollars: int, per: int) -> Rate:
    shared = gcd(picodollars, per)
    return picodollars // shared, per // shared


def rate_to_usd(rate: Rate, units: int = _TOKENS_PER_MTOK) -> float:
    """The rate as dollars for so many units, for people to read."""
    return rate[0] * units / (rate[1] * _PICO_PER_USD)


def format_cents(nanousd: int) -> str:
    """Cents for `X-Cost-Cents`: at most 6 decimals, half rounded up, no trailing zeros."""
    whole, micro = divmod((nanousd + 5) // 10, 10**6)
    return f"{whole}.{micro:06}".rstrip("0") if micro else str(whole)
