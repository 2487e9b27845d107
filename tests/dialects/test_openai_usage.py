"""Usage in every spelling of the neighbours has one meaning."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.target import Quirks
from aigate.core.usage import Usage
from aigate.dialects.dialect import Settlement
from aigate.dialects.openai_usage import open_pairs, read_usage_object, write_usage, write_usage_object
from aigate.errors import ProviderError
from tests.dialects.recorded import needs_recordings, plain_replies, recorded_target, target

OUTSIDE, HIDDEN = Quirks(reasoning_tokens="outside"), Quirks(reasoning_tokens="hidden")


def counts(prompt: Any, completion: Any, total: Any = None, **more: object) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion if total is None else total, **more}


@pytest.mark.parametrize(
    ("fields", "quirks", "usage"),
    [
        (counts(10, 5), Quirks(), Usage(10, 5)),
        (counts(10, 5, prompt_tokens_details={"cached_tokens": 4, "cache_write_tokens": 3}), Quirks(), Usage(10, 5, 4, 3)),
        (counts(10, 5, prompt_tokens_details={"cache_creation_input_tokens": 3}), Quirks(), Usage(10, 5, 0, 3)),
        (counts(10, 5, prompt_token_details={"cached_tokens": 4}), Quirks(), Usage(10, 5, 4)),
        (counts(10, 5, prompt_cache_hit_tokens=4, prompt_cache_miss_tokens=6), Quirks(), Usage(10, 5, 4)),
        (counts(10, 5, num_cached_tokens=4), Quirks(), Usage(10, 5, 4)),
        (counts(10, 5, cached_tokens=4), Quirks(), Usage(10, 5, 4)),
        (counts(10, 5, prompt_tokens_details=None, completion_tokens_details=None), Quirks(), Usage(10, 5)),
        (counts(10, 5, cached_tokens=14), Quirks(), Usage(24, 5, 14)),
        (counts(10, 5, completion_tokens_details={"reasoning_tokens": 4}), Quirks(), Usage(10, 5, 0, 0, 4)),
        (counts(10, 5, completion_tokens_details={"reasoning_tokens": 9}), Quirks(), Usage(10, 5, 0, 0, 5)),
        (counts(10, 5, 24, completion_tokens_details={"reasoning_tokens": 9}), Quirks(), Usage(10, 14, 0, 0, 9)),
        (counts(10, 5, 24, completion_tokens_details={"reasoning_tokens": 9}), OUTSIDE, Usage(10, 14, 0, 0, 9)),
        (counts(10, 5, 18, completion_tokens_details={"reasoning_tokens": 3}), OUTSIDE, Usage(10, 8, 0, 0, 3)),
        (counts(10, 5, completion_tokens_details={"reasoning_tokens": 3}), OUTSIDE, Usage(10, 5, 0, 0, 3)),
        (counts(10, 5, 0, completion_tokens_details={"reasoning_tokens": 3}), OUTSIDE, Usage(10, 8, 0, 0, 3)),
        (counts(35, 12, 109), HIDDEN, Usage(35, 74, 0, 0, 62)),
        (counts(35, 12), HIDDEN, Usage(35, 12)),
        (counts(9, 8, prompt_tokens_details={"audio_tokens": 6}, completion_tokens_details={"audio_tokens": 7}), Quirks(), Usage(9, 8, 0, 0, 0, 6, 7)),
        ({"prompt_tokens": 8, "total_tokens": 8}, Quirks(), Usage(8, 0)),
        ({"input_tokens": 3, "output_tokens": 2}, Quirks(), Usage(3, 2)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Quirks(), Usage()),
        (counts(10.0, "5", 15.0, prompt_tokens_details={"cached_tokens": 4.0}), Quirks(), Usage(10, 5, 4)),
        ({"prompt_tokens": 10, "total_tokens": 15}, Quirks(), Usage(10, 5)),
        ({"completion_tokens": 5, "total_tokens": 15}, Quirks(), Usage(10, 5)),
        (counts(-3, 5, 15), Quirks(), Usage(10, 5)),
        # What cannot be told is not taken as 0, which would give it away.
        ({"prompt_tokens": None, "completion_tokens": "5", "total_tokens": 7.5}, Quirks(), None),
        ({"prompt_tokens": None, "completion_tokens": None, "total_tokens": None}, Quirks(), None),
        (counts("many", "few", "lots"), Quirks(), None),
        ({"prompt_tokens": 10}, Quirks(), None),
        ({"total_tokens": 15}, Quirks(), None),
        (counts(10, 1 << 50), Quirks(), None),
        ({}, Quirks(), None),
        ({"queue_time": 0.1}, Quirks(), None),
    ],
)
def test_each_spelling_is_read(fields: dict[str, Any], quirks: Quirks, usage: Usage | None) -> None:
    assert read_usage_object(fields, quirks) == usage


NUMBERS = st.one_of(st.integers(-5, 1 << 40), st.none(), st.text(max_size=3), st.booleans(), st.floats(allow_nan=False))
KEYS = ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "num_cached_tokens", "reasoning_tokens", "audio_tokens", "cache_write_tokens"]
DETAILS = st.dictionaries(st.sampled_from(KEYS), NUMBERS, max_size=4)
OBJECTS = st.tuples(DETAILS, st.one_of(DETAILS, NUMBERS), st.one_of(DETAILS, NUMBERS)).map(
    lambda parts: {**parts[0], "prompt_tokens_details": parts[1], "completion_tokens_details": parts[2]}
)


@given(OBJECTS, st.sampled_from(["inside", "outside", "hidden"]))
def test_parts_never_exceed_their_totals_whatever_is_sent(fields: dict[str, Any], where: str) -> None:
    usage = read_usage_object(fields, Quirks(reasoning_tokens=where))
    if usage is not None:
        assert 0 <= usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
        assert 0 <= usage.reasoning_tokens <= usage.output_tokens
        assert max(usage.audio_input_tokens - usage.input_tokens, usage.audio_output_tokens - usage.output_tokens) <= 0


@given(OBJECTS, st.sampled_from(["inside", "outside", "hidden"]), st.sampled_from([{}, {"cost": 1}, {"queue_time": 0.5}]))
def test_a_reply_read_in_one_go_says_what_its_object_says(fields: dict[str, Any], where: str, more: dict[str, Any]) -> None:
    fields |= more
    body = json.dumps({"choices": [], "usage": fields}).encode()
    quirks = Quirks(reasoning_tokens=where)
    opened = open_pairs(body, target(quirks), "choices")
    assert opened is not None and opened.usage == read_usage_object(json.loads(json.dumps(fields)), quirks)
    if opened.usage is not None and opened.pairs is not None:  # else the body goes as it came
        settlement = Settlement(opened.usage, 1234, opened.raw_usage, is_usage_whole=opened.is_usage_whole)
        assert json.loads(msgspec.json.encode(write_usage(settlement))) == write_usage_object(settlement)


def test_the_cost_is_put_behind_a_whole_usage_object() -> None:
    raw = b'{"prompt_tokens": 3,  "completion_tokens":2,"total_tokens":5}'
    opened = open_pairs(b'{"choices":[],"usage":' + raw + b" }", target(), "choices")
    assert opened is not None and opened.is_usage_whole
    settlement = Settlement(Usage(3, 2), 1_500_000_000, opened.raw_usage, is_usage_whole=True)
    assert msgspec.json.encode(write_usage(settlement)) == raw[:-1] + b',"cost":1.5}'


def test_the_providers_own_numbers_are_kept_and_its_cost_is_not() -> None:
    raw = json.dumps(counts(10, 5, cost=9.9, queue_time=0.25, cached_tokens=4)).encode()
    written = write_usage_object(Settlement(Usage(10, 5, 4), 123, raw))
    assert written == counts(10, 5, cost=1.23e-07, queue_time=0.25, cached_tokens=4, prompt_tokens_details={"cached_tokens": 4})


def test_a_client_is_told_counts_as_numbers_however_they_were_spelt() -> None:
    for raw in (counts("10", 5.0, "15"), counts(None, -1, {}), {"prompt_tokens": 10}):
        assert write_usage_object(Settlement(Usage(10, 5), 0, json.dumps(raw).encode())) == counts(10, 5, cost=0.0)


def test_a_reply_behind_a_byte_order_mark_is_a_reply() -> None:
    opened = open_pairs(b'\xef\xbb\xbf{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2}}', target(), "choices")
    assert opened is not None and opened.usage == Usage(3, 2) and opened.body.startswith(b"{")


def test_an_endpoint_that_makes_no_tokens_may_tell_the_total_alone() -> None:
    for usage in ({"total_tokens": 8}, {"prompt_tokens": 8}, {"prompt_tokens": 8, "total_tokens": 8}):
        opened = open_pairs(json.dumps({"data": [], "usage": usage}).encode(), target(), "data", makes_tokens=False)
        assert opened is not None and opened.usage == Usage(8, 0)


@pytest.mark.parametrize("message", ['"plain"', '"half \\ud800"', "NaN", "[" * 2000 + "]" * 2000])
def test_an_error_under_200_is_one_whatever_is_in_it(message: str) -> None:
    body = b'{"error": {"message": %b}}' % message.encode()
    try:
        assert open_pairs(body, target(), "choices") is None
    except ProviderError as error:
        assert error.status == 502


def test_an_object_that_is_an_error_by_itself_is_one() -> None:
    with pytest.raises(ProviderError, match="engine died"):
        open_pairs(b'{"object":"error","message":"engine died","code":500}', target(), "choices")


def test_reasoning_beside_completion_tokens_is_not_told_as_inside_them() -> None:
    assert "completion_tokens_details" not in write_usage_object(Settlement(Usage(35, 74, 0, 0, 62), 1, json.dumps(counts(35, 12, 109)).encode()))


def test_another_formats_usage_is_told_in_this_one() -> None:
    written = write_usage_object(Settlement(Usage(10, 5), 0, b'{"inputTokens": 10, "outputTokens": 5}'))
    assert written == counts(10, 5, cost=0.0)


@given(st.integers(0, 10**15))
def test_the_cost_prints_as_the_exact_decimal(cost_nanousd: int) -> None:
    text = msgspec.json.encode(write_usage_object(Settlement(Usage(), cost_nanousd))["cost"]).decode()
    assert round(float(text) * 10**9) == cost_nanousd
    mantissa = text.lower().split("e")[0].replace(".", "").lstrip("0").rstrip("0")
    assert mantissa == str(cost_nanousd).rstrip("0").lstrip("0")


@needs_recordings
def test_recorded_usage_adds_up_to_what_the_provider_says() -> None:
    for record in plain_replies():
        fields, quirks = json.loads(record["response"]).get("usage"), recorded_target(record).quirks
        if fields:
            usage = read_usage_object(fields, quirks)
            assert usage is not None
            assert usage.input_tokens == fields["prompt_tokens"], record["id"]
            assert usage.total_tokens == fields["total_tokens"], record["id"]
