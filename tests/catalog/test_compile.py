"""Compiling prices: every shape of the source data, what is left out, and the falls in price that stop a build.

The data set's own classes are used where the package is installed (it is a development dependency); its shipped prices are checked
against its own calculator.
"""

import datetime
from decimal import Decimal

import pytest

types = pytest.importorskip("genai_prices.types", reason="genai-prices is needed to compile prices")

from aigate.catalog.compile import SOURCES, compile_prices, dearest, suspicious_drops  # noqa: E402
from aigate.catalog.prices import PriceBook, PriceEntry, load_price_book  # noqa: E402
from aigate.core.price import price_usage  # noqa: E402
from aigate.core.target import Price  # noqa: E402
from aigate.core.usage import Usage  # noqa: E402
from tools import catalog as tool  # noqa: E402

TODAY = datetime.date(2026, 11, 22)


def usd(**prices):
    return types.ModelPrice(**{key: Decimal(value) if isinstance(value, str) else value for key, value in prices.items()})


def tiered(base, **steps):
    return types.TieredPrices(base=Decimal(base), tiers=[types.Tier(int(start[1:]), Decimal(price)) for start, price in steps.items()])


def compiled(prices, *, match=None, name="m", provider="openai", **fields):
    model = types.ModelInfo(id=name, match=match or types.ClauseEquals(name), prices=prices, **fields)
    source = SOURCES[provider][0]
    providers = [types.Provider(id=each, name=each, api_pattern="x") for ids in SOURCES.values() for each in ids]
    next(each for each in providers if each.id == source).models.append(model)
    return compile_prices(providers, TODAY)


def entry(*args, **kwargs):
    (only,) = compiled(*args, **kwargs).providers["openai"]
    return only


def test_rates_are_exact():
    found = entry(usd(input_mtok="0.15", output_mtok="0.6", cache_read_mtok="0.003625", cache_write_mtok="3.125", requests_kcount="5"))
    assert found.rates == {
        "input": (150_000, 1),
        "output": (600_000, 1),
        "cached_input": (3625, 1),
        "cache_write": (3_125_000, 1),
        "request": (5_000_000_000, 1),
    }


def test_a_tier_holds_every_rate_of_its_own():
    found = entry(usd(input_mtok=tiered("1", t200000="2"), output_mtok="5"))
    assert found.tiers == ((200_000, {"input": (2_000_000, 1), "output": (5_000_000, 1)}),)


def conditional(prices, constraint=None):
    return types.ConditionalPrice(constraint, prices=prices)


def day(text):
    return types.StartDateConstraint(datetime.date.fromisoformat(text))


def test_the_price_in_force_is_the_last_that_has_begun():
    prices = [
        conditional(usd(input_mtok="1")),
        conditional(usd(input_mtok="2"), day("2026-10-01")),
        conditional(usd(input_mtok="3"), day("2027-01-01")),
    ]
    assert entry(prices).rates == {"input": (2_000_000, 1)}


def test_of_hourly_prices_the_dearest_counts():
    hours = types.TimeOfDateConstraint(datetime.time(1), datetime.time(4))
    prices = [conditional(usd(input_mtok="1", output_mtok="9")), conditional(usd(input_mtok="2", output_mtok="4"), hours)]
    assert entry(prices).rates == {"input": (2_000_000, 1), "output": (9_000_000, 1)}


@pytest.mark.parametrize("prices", [usd(), usd(audio_hours="1"), usd(input_mtok="1", output_image_mtok="30")])
def test_what_cannot_be_metered_is_left_out_and_counted(prices):
    result = compiled(prices)
    assert result.providers["openai"] == [] and result.skipped.total() == 1


def test_a_free_model_costs_nothing():
    assert entry(usd(), name="a/b:free").rates == {}


def test_service_tiers_have_whole_prices_of_their_own():
    variants = [
        types.PriceVariant(when={"service_tier": "priority"}, prices=usd(input_mtok="2")),
        types.PriceVariant(when={"service_tier": "flex"}, prices=usd(input_mtok="0.5"), constraint=day("2027-01-01")),
        types.PriceVariant(when={"processing": "batch"}, prices=usd(input_mtok="0.1")),
    ]
    price = PriceBook(encode_one(entry(usd(input_mtok="1", output_mtok="4"), price_variants=variants))).find("openai", "m").price()
    assert list(price.services) == ["priority"]
    assert price.services["priority"].rates == {"input": (2_000_000, 1), "output": (4_000_000, 1)}


def encode_one(found):
    return tool.encode({"openai": [found]}, "test", "2026-11-22")


@pytest.mark.parametrize(
    ("clause", "hits", "misses"),
    [
        (types.ClauseEquals("GPT-x"), ["gpt-X"], ["gpt-x2"]),
        (types.ClauseStartsWith("a"), ["ab", "A"], ["ba"]),
        (types.ClauseEndsWith("z"), ["yz"], ["zy"]),
        (types.ClauseContains("in"), ["sink"], ["sunk"]),
        (types.ClauseRegex(r"^m-\d+$"), ["m-12"], ["m-x"]),
        (types.ClauseOr([types.ClauseEquals("a"), types.ClauseStartsWith("b")]), ["a", "bc"], ["c"]),
        (types.ClauseAnd([types.ClauseStartsWith("a"), types.ClauseEndsWith("z")]), ["a-z"], ["a", "z"]),
        (
            types.ClauseOr([types.ClauseEquals("q"), types.ClauseAnd([types.ClauseContains("x"), types.ClauseContains("y")])]),
            ["q", "xy"],
            ["x"],
        ),
    ],
)
def test_names_match_as_the_source_matches_them(clause, hits, misses):
    book = PriceBook(encode_one(entry(usd(input_mtok="1"), match=clause)))
    assert all(book.find("openai", name) for name in hits)
    assert not any(book.find("openai", name) for name in misses)


def test_a_rule_too_deep_to_say_is_left_out():
    deep = types.ClauseAnd([types.ClauseOr([types.ClauseEquals("a")]), types.ClauseEquals("b")])
    result = compiled(usd(input_mtok="1"), match=deep)
    assert result.providers["openai"] == [] and result.skipped.total() == 1


def test_the_dearest_of_prices_is_never_cheaper_than_any():
    flat = Price(rates={"input": (5, 1), "output": (5, 1)})
    stepped = Price(rates={"input": (1, 1), "output": (9, 1), "cached_input": (1, 1)}, tiers=((10, Price(rates={"input": (8, 1)})),))
    price = dearest([flat, stepped])
    for usage in (Usage(5000, 5000), Usage(10, 10), Usage(9, 9, cached_tokens=9)):
        assert price_usage(price, usage) >= max(price_usage(flat, usage), price_usage(stepped, usage))


def entries(**rates):
    return {"openai": [PriceEntry(id="m", match=["=m"], rates=rates)]}


@pytest.mark.parametrize(
    ("new", "is_suspicious"),
    [
        (entries(input=(11, 1), output=(100, 1)), False),
        (entries(input=(10, 1), output=(100, 1)), True),
        (entries(input=(0, 1), output=(100, 1)), True),
        (entries(output=(100, 1)), True),
        (entries(input=(1000, 1), output=(9, 1)), True),
        ({"openai": []}, False),
    ],
)
def test_a_fall_to_nothing_or_by_nine_tenths_is_suspicious(new, is_suspicious):
    assert bool(suspicious_drops(entries(input=(100, 1), output=(100, 1)), new)) is is_suspicious


def test_the_tool_stops_at_a_suspicious_fall_and_leaves_the_file_alone(tmp_path, capsys):
    path = tmp_path / "prices.json"
    assert tool.main(["--output", str(path), "--effective", "2026-11-22"]) == 0
    good = path.read_bytes()
    entry_before = PriceBook(good).find("openai", "gpt-5.4")
    dearer = {"openai": [PriceEntry(id=entry_before.id, match=["=gpt-5.4"], rates={"input": (10**9, 1)})]}
    path.write_bytes(tool.encode(dearer, "test", "2026-11-22"))
    kept = path.read_bytes()
    assert tool.main(["--output", str(path), "--effective", "2026-11-22"]) == 1
    assert path.read_bytes() == kept
    assert "openai/gpt-5.4" in capsys.readouterr().err
    assert tool.main(["--output", str(path), "--effective", "2026-11-22", "--accept", "openai/gpt-5.4"]) == 0
    assert path.read_bytes() == good


@pytest.mark.parametrize(
    ("ours", "theirs", "name"),
    [
        ("openai", "openai", "gpt-5.4-2026-03-05"),
        ("openai", "openai", "gpt-4o-mini"),
        ("openai", "openai", "gpt-5.2-20251211"),
        ("xai", "x-ai", "grok-4.5"),
        ("mistral", "mistral", "mistral-small-latest"),
        ("google", "google", "gemini-2.5-flash"),
        ("groq", "groq", "openai/gpt-oss-120b"),
        ("openrouter", "openrouter", "anthropic/claude-sonnet-5"),
    ],
)
@pytest.mark.parametrize("tokens", [1000, 250_000])
def test_shipped_prices_agree_with_the_source(ours, theirs, name, tokens):
    from genai_prices.data import providers

    book = load_price_book()
    source = next(provider for provider in providers if provider.id == theirs)
    moment = datetime.datetime.combine(datetime.date.fromisoformat(book.effective), datetime.time(12), datetime.UTC)
    usage = types.Usage(input_tokens=tokens, output_tokens=500, cache_read_tokens=100)
    theirs_usd = source.find_model(name).calc_price(usage, source, genai_request_timestamp=moment).total_price
    ours_nanousd = price_usage(book.find(ours, name).price(), Usage(tokens, 500, cached_tokens=100))
    assert 0 <= ours_nanousd - theirs_usd * 10**9 < 3  # a class is rounded up to a nano-dollar
