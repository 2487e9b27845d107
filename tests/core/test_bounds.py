"""Bounds are never below what may be charged: tokens of input and output, and the hold over every price."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aigate.core.bounds import (
    IMAGE_TOKENS,
    OVERHEAD_TOKENS,
    WIDEST_WINDOW_TOKENS,
    hold_nanousd,
    input_bound,
    output_bound,
)
from aigate.core.call import Call
from aigate.core.params import MAX_ASKED_TOKENS
from aigate.core.price import price_usage
from aigate.core.target import Model, Price, Provider, Quirks, Target
from aigate.core.usage import Usage


def make_target(**model):
    provider = Provider(name="p", base_url="http://h")
    return Target("p/m", provider, "m", Model(slug="p/m", **model), Quirks(), "openai-chat", "/chat/completions", "chat")


def make_call(content, endpoint="chat", **fields):
    messages = content if isinstance(content, bytes) else json.dumps([{"role": "user", "content": content}]).encode()
    pairs = {"model": Raw(b'"p/m"'), "messages": Raw(messages)} if endpoint == "chat" else {"input": Raw(messages)}
    return Call("openai-chat", endpoint, pairs, sum(map(len, pairs)) + len(messages) + 20, ("p/m",), **fields)


@given(st.text())
def test_text_is_bounded_by_its_bytes(text):
    assert input_bound(make_call(text), make_target()) >= len(text.encode(errors="ignore")) + OVERHEAD_TOKENS


def test_an_ordinary_body_is_bounded_by_its_bytes_alone():
    call = make_call('see "image_url" and café')
    assert input_bound(call, make_target()) == call.body_bytes + OVERHEAD_TOKENS


def image(url):
    return {"type": "image_url", "image_url": {"url": url}}


def test_a_linked_image_is_bounded_by_the_part_whatever_its_url():
    call = make_call([image("https://x/1.png"), image("https://x/2.png")])
    assert input_bound(call, make_target()) == call.body_bytes + OVERHEAD_TOKENS + 2 * IMAGE_TOKENS


def test_an_inline_image_is_bounded_by_the_part_and_not_by_its_bytes():
    small, large = (input_bound(make_call([image("data:image/png;base64," + "A" * size)]), make_target()) for size in (10, 500_000))
    assert small == large > IMAGE_TOKENS


def test_text_that_looks_like_an_inline_image_still_counts():
    text = '"url":"data:image/png;base64,' + "word " * 1000
    assert input_bound(make_call(text), make_target()) >= 5000


@pytest.mark.parametrize("separator", [": ", " : ", ":"])
def test_white_space_hides_no_image(separator):
    messages = b'[{"role":"user","content":[{"type":"image_url","image_url"%b{"url":"https://x"}}]}]' % separator.encode()
    assert input_bound(make_call(messages), make_target()) > IMAGE_TOKENS


def test_escapes_hide_no_image():
    messages = rb'[{"role":"user","content":[{"type":"im\u0061ge_url","im\u0061ge\u005furl":{"url":"https://x"}}]}]'
    assert input_bound(make_call(messages), make_target()) > IMAGE_TOKENS


@pytest.mark.parametrize("part", ["file", "video_url", "audio_url"])
def test_a_document_or_video_is_bounded_by_the_window(part):
    call = make_call([{"type": part, part: {"file_id": "f"}}] * 2)
    assert input_bound(call, make_target(context_window=9000)) == call.body_bytes + OVERHEAD_TOKENS + 9000
    assert input_bound(call, make_target()) == call.body_bytes + OVERHEAD_TOKENS + WIDEST_WINDOW_TOKENS


def test_inline_audio_is_bounded_by_its_bytes():
    call = make_call([{"type": "input_audio", "input_audio": {"data": "A" * 1000, "format": "wav"}}])
    assert input_bound(call, make_target()) == call.body_bytes + OVERHEAD_TOKENS


@pytest.mark.parametrize(
    ("asked", "limit", "n", "bound"),
    [(50, 0, 1, 50), (50, 20, 1, 50), (None, 20, 1, 20), (None, 0, 1, 777), (50, 0, 3, 150), (None, 20, 2, 40), (10**30, 0, 2, 2 * MAX_ASKED_TOKENS)],
)
def test_output_is_bounded_by_what_was_asked_else_the_limit_else_the_default(asked, limit, n, bound):
    call = make_call("x", max_output_tokens=asked, n=n)
    assert output_bound(call, make_target(max_output_tokens=limit), 777) == bound


def test_embeddings_have_no_output():
    assert output_bound(make_call(["a"], endpoint="embeddings"), make_target(max_output_tokens=20), 777) == 0


rate = st.tuples(st.integers(0, 10**8), st.sampled_from([1, 7, 10**6]))
tables = st.fixed_dictionaries(
    {"input": rate, "output": rate},
    optional={name: rate for name in ("cached_input", "cache_write", "audio_input", "audio_output", "request")},
)
tiers = st.lists(st.tuples(st.integers(0, 10**6), tables), max_size=3, unique_by=lambda tier: tier[0]).map(
    lambda found: tuple((above, Price(rates=rates)) for above, rates in sorted(found, key=lambda tier: tier[0]))
)
share = st.integers(0, 10**6)


@given(tables, tiers, st.tuples(share, share, share, share, share, share), st.tuples(share, share))
def test_no_usage_within_the_bounds_costs_more_than_the_hold(rates, tiers, used, slack):
    usage = Usage(
        used[0], used[1], cached_tokens=used[2], cache_write_tokens=used[3], audio_input_tokens=used[4], audio_output_tokens=used[5]
    )
    price = Price(rates=rates, tiers=tiers)
    assert price_usage(price, usage) <= hold_nanousd(price, used[0] + slack[0], used[1] + slack[1])


def test_no_price_holds_nothing():
    assert hold_nanousd(None, 1000, 1000) == 0


def gemini_call(part):
    contents = json.dumps([{"parts": [part]}]).encode()
    return Call("gemini", "chat", {"contents": Raw(contents)}, len(contents) + 20, ("p/m",))


@pytest.mark.parametrize("order", [("mimeType", "data"), ("data", "mimeType")])
def test_geminis_inline_image_is_bounded_by_the_part_and_not_by_its_bytes(order):
    def bound(size):
        fields = {"mimeType": "image/png", "data": "A" * size}
        return input_bound(gemini_call({"inlineData": {key: fields[key] for key in order}}), make_target())

    assert bound(10) == bound(500_000) > IMAGE_TOKENS


@pytest.mark.parametrize(
    "part",
    [{"fileData": {"fileUri": "https://x", "mimeType": "image/png"}}, {"file_data": {"file_uri": "gs://x"}},
     {"inlineData": {"mimeType": "application/pdf", "data": "A"}}, {"inline_data": {"data": "A", "mime_type": "video/mp4"}}],
)  # fmt: skip
def test_geminis_files_and_videos_are_bounded_by_the_window(part):
    assert input_bound(gemini_call(part), make_target(context_window=90_000)) >= 90_000
