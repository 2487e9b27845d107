"""Money is exact: costs against fractions, tiers, ids by content, the ways an amount is written."""

from decimal import Decimal
from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.price import (
    format_cents,
    price_id,
    price_usage,
    rate_to_usd,
    rates_for,
    service_price,
    usd_to_rate,
    with_id,
)
from aigate.core.target import Price
from aigate.core.usage import Usage

counts = st.integers(0, 3_000_000)
rate = st.tuples(st.integers(0, 10**9), st.sampled_from([1, 3, 1000, 10**6]))
usages = st.builds(
    Usage,
    input_tokens=counts,
    output_tokens=counts,
    cached_tokens=counts,
    cache_write_tokens=counts,
    audio_input_tokens=counts,
    audio_output_tokens=counts,
)
rate_tables = st.fixed_dictionaries(
    {"input": rate, "output": rate},
    optional={name: rate for name in ("cached_input", "cache_write", "audio_input", "audio_output", "request")},
)


def nanousd(rates, name, parent, units):
    """The definition in words: units × rate, in nano-dollars, rounded up once."""
    picodollars, per = rates.get(name, rates[parent])
    return ceil(Fraction(units * picodollars, per * 1000))


@given(rate_tables, usages)
def test_cost_is_the_sum_of_each_class_rounded_up_once(rates, usage):
    left = usage.input_tokens
    expected = 0
    for name, units in (
        ("cached_input", usage.cached_tokens),
        ("cache_write", usage.cache_write_tokens),
        ("audio_input", usage.audio_input_tokens),
    ):
        taken = min(units, left)
        left -= taken
        expected += nanousd(rates, name, "input", taken)
    spoken = min(usage.audio_output_tokens, usage.output_tokens)
    expected += nanousd(rates, "input", "input", left)
    expected += nanousd(rates, "audio_output", "output", spoken)
    expected += nanousd(rates, "output", "output", usage.output_tokens - spoken)
    if "request" in rates and (usage.input_tokens or usage.output_tokens):
        expected += nanousd(rates, "request", "request", 1)
    assert price_usage(Price(rates=rates), usage) == expected


def test_cost_of_a_plain_call_by_hand():
    price = Price(rates={"input": usd_to_rate("0.15"), "cached_input": usd_to_rate("0.075"), "output": usd_to_rate("0.60")})
    assert price_usage(price, Usage(1000, 200, cached_tokens=400)) == 600 * 150 + 400 * 75 + 200 * 600


def test_no_price_costs_nothing():
    assert price_usage(None, Usage(5, 5)) == 0


def test_a_call_that_used_nothing_costs_nothing_even_where_requests_are_charged():
    assert price_usage(Price(rates={"request": (5_000_000_000, 1)}), Usage()) == 0


@pytest.mark.parametrize(("tokens", "nanousd_each"), [(200_000, 1), (200_001, 2), (400_000, 2), (400_001, 3)])
def test_a_tier_prices_the_whole_call_from_above_its_threshold(tokens, nanousd_each):
    tiers = ((200_000, Price(rates={"input": (2000, 1)})), (400_000, Price(rates={"input": (3000, 1)})))
    price = Price(rates={"input": (1000, 1)}, tiers=tiers)
    assert price_usage(price, Usage(tokens)) == tokens * nanousd_each
    assert rates_for(price, tokens)["input"] == (nanousd_each * 1000, 1)


@given(st.decimals(min_value=0, max_value=10_000, allow_nan=False, places=9), st.sampled_from([1, 1000, 10**6]))
def test_a_rate_is_exactly_the_price_it_was_made_from(usd, units):
    picodollars, per = usd_to_rate(usd, units)
    assert Fraction(picodollars, per) == Fraction(usd) * 10**12 / units


def test_a_float_price_counts_as_it_is_written():
    assert usd_to_rate(0.1) == usd_to_rate("0.1") == usd_to_rate(Decimal("0.1")) == (100_000, 1)
    assert rate_to_usd(usd_to_rate(0.075)) == 0.075


@pytest.mark.parametrize("usd", ["-1", "nan", "inf", "twelve", -0.5])
def test_what_is_no_price_is_refused_by_name(usd):
    with pytest.raises(ValueError, match=str(usd)):
        usd_to_rate(usd)


def test_equal_content_has_an_equal_id_wherever_it_came_from():
    one = Price(rates={"input": (1, 1), "output": (2, 1)}, source="here")
    other = Price(rates={"output": (2, 1), "input": (1, 1)}, source="there")
    assert price_id(one) == price_id(other) == with_id(one).id
    assert price_id(one).startswith("prc_")


@pytest.mark.parametrize(
    "other",
    [
        Price(rates={"input": (1, 1), "output": (3, 1)}),
        Price(rates={"input": (1, 1)}),
        Price(rates={"input": (1, 1), "output": (2, 1)}, tiers=((5, Price(rates={"input": (1, 1)})),)),
    ],
)
def test_different_content_has_a_different_id(other):
    assert price_id(Price(rates={"input": (1, 1), "output": (2, 1)})) != price_id(other)


def test_a_service_tier_has_its_own_price_and_an_unknown_one_the_standard():
    flex = with_id(Price(rates={"input": (1, 1)}))
    price = Price(rates={"input": (2, 1)}, services={"flex": flex})
    assert service_price(price, "flex") is flex
    assert service_price(price, "default") is service_price(price, None) is price


@pytest.mark.parametrize(
    ("amount", "cents"),
    [(0, "0"), (4_389_000, "0.4389"), (10_000_000, "1"), (1, "0"), (5, "0.000001"), (123_456_789_000, "12345.6789")],
)
def test_cents_have_at_most_six_decimals(amount, cents):
    assert format_cents(amount) == cents
