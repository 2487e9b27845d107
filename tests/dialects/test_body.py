"""Bodies that are no JSON object get true words; keys and depth are checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.dialects.body import MAX_DEPTH, read_pairs, read_time
from aigate.errors import ClientError

ACTED_ON = frozenset({"model", "messages"})


def refusal(body: bytes) -> ClientError:
    with pytest.raises(ClientError) as caught:
        read_pairs(body, ACTED_ON)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b"[1]", "must be a JSON object, not array"),
        (b'"x"', "must be a JSON object, not str"),
        (b"null", "must be a JSON object, not null"),
        (b'{"a":1', "ends early, after 6 bytes"),
        (b'{"a":}', "(byte 5)"),
        (b'{"a":1}x', "trailing characters"),
        (b'{"a":NaN}', "NaN and Infinity"),
        (b'{"a":-Infinity}', "NaN and Infinity"),
        (b'{"a":"\xff"}', "not UTF-8 (byte 6)"),
        (b'{"a":"x\\ud800y  "}', "surrogate"),
        (b'{"a":' + b"[" * 100_000, "nested more than 100"),
        (b"<html>", "byte 0"),
    ],
)
def test_the_message_says_what_is_wrong(body: bytes, words: str) -> None:
    assert words in refusal(body).message


def test_another_case_of_an_acted_on_key_is_refused_by_name() -> None:
    error = refusal(b'{"Model":"x"}')
    assert "'Model'" in error.message
    assert "'model'" in error.message
    assert error.param == "Model"


def test_the_last_of_two_equal_keys_counts() -> None:
    assert bytes(read_pairs(b'{"model":"a","model":"b"}', ACTED_ON)["model"]) == b'"b"'


def test_values_stay_as_they_came() -> None:
    pairs = read_pairs(b'{"x": [1.50, 12345678901234567890123, "\\u0061" ] }', ACTED_ON)
    assert bytes(pairs["x"]) == b'[1.50, 12345678901234567890123, "\\u0061" ]'


@given(st.integers(1, 140), st.lists(st.sampled_from(["[", '{"k":']), min_size=1, max_size=3), st.sampled_from(['"]}["', '"\\\\"', '"\\"{"', "1"]))
def test_depth_is_counted_outside_strings(depth: int, openers: list[str], leaf: str) -> None:
    used = [openers[n % len(openers)] for n in range(depth - 1)]
    closers = ["]" if opener == "[" else "}" for opener in reversed(used)]
    wide = ",".join(["[]"] * 120)
    body = ('{"x":' + "".join(used) + leaf + "".join(closers) + f',"s":"{"[" * 150}","w":[{wide}]' + "}").encode()
    if depth > MAX_DEPTH:
        assert "nested" in refusal(body).message
    else:
        assert "x" in read_pairs(body, ACTED_ON)


@pytest.mark.parametrize(("value", "time"), [(17, 17), (17.9, 17), (1e300, 0), (10**30, 0), (-1, 0), ("now", 0), (None, 0), (float("nan"), 0)])
def test_a_time_beyond_the_calendar_is_none(value: object, time: int) -> None:
    assert read_time(value) == time
