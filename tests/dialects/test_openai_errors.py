"""Provider errors in every shape, our envelope, and the redactor."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.dialects.openai_errors import MAX_MESSAGE_CHARS, read_error, read_error_object, redact, write_error
from aigate.errors import ClientError, ProviderError
from tests.dialects.recorded import chat_records, needs_recordings


def refused(status: int, body: object = b"", headers: dict[bytes, bytes] | None = None) -> ProviderError:
    return read_error(status, headers or {}, body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("status", "ours", "kind", "type_", "code", "retryable"),
    [
        (400, 400, "rejected", "invalid_request_error", "invalid_request", False),
        (404, 404, "rejected", "model_not_found", "unknown_model", False),
        (413, 413, "rejected", "invalid_request_error", "payload_too_large", False),
        (422, 422, "rejected", "invalid_request_error", "invalid_request", False),
        (401, 502, "auth", "provider_error", "provider_unavailable", False),
        (402, 502, "auth", "provider_error", "provider_unavailable", False),
        (403, 502, "auth", "provider_error", "provider_unavailable", False),
        (408, 504, "timeout", "timeout_error", "provider_timeout", True),
        (409, 502, "error", "provider_error", "provider_unavailable", True),
        (429, 429, "rate_limited", "rate_limit_error", "rate_limited", True),
        (500, 502, "error", "provider_error", "provider_unavailable", True),
        (502, 502, "error", "provider_error", "provider_unavailable", True),
        (503, 503, "overloaded", "provider_error", "capacity_exceeded", True),
        (504, 504, "timeout", "timeout_error", "provider_timeout", True),
        (529, 503, "overloaded", "provider_error", "capacity_exceeded", True),
        (301, 502, "error", "provider_error", "provider_unavailable", True),
    ],
)
def test_each_status_has_its_meaning(status: int, ours: int, kind: str, type_: str, code: str, retryable: bool) -> None:
    error = refused(status)
    assert (error.status, error.kind, error.type, error.code, error.retryable) == (ours, kind, type_, code, retryable)
    assert (error.origin, error.provider_status) == ("provider", status)


@pytest.mark.parametrize("code", ["insufficient_quota", "exceeded_current_quota_error", "credit_balance_exhausted"])
@pytest.mark.parametrize("key", ["code", "type"])
def test_a_429_about_money_is_not_retried(code: str, key: str) -> None:
    error = refused(429, {"error": {"message": "pay", key: code}})
    assert (error.kind, error.status, error.retryable) == ("auth", 502, False)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"error": {"message": "bad n", "code": None}}, "bad n"),
        ([{"error": {"code": 400, "message": "bad n", "status": "INVALID_ARGUMENT"}}], "bad n"),
        ({"object": "error", "message": "bad n", "code": 40001}, "bad n"),
        ({"error": "bad n"}, "bad n"),
        ({"error": "bad_request", "message": "bad n"}, "bad n"),
        ({"detail": "bad n"}, "bad n"),
        ({"detail": [{"loc": ["body", "n"], "msg": "too big"}, "and more"]}, "body.n: too big; and more"),
        ({"message": {"detail": [{"loc": ["n"], "msg": "x"}]}}, '{"detail":[{"loc":["n"],"msg":"x"}]}'),
        ({"error": {"message": "up", "metadata": {"raw": "bad n"}}}, "up: bad n"),
        ("bad n", "bad n"),
        (b"<html><head><title>502 Bad n</title></head><body>x</body></html>", "502 Bad n"),
        (b"<p>bad&nbsp;n</p><script>x()</script>", "bad&nbsp;n"),
        (b"bad \xff n", "bad \ufffd n"),
        ({"success": False, "errors": [{"code": 5007, "message": "no model"}]}, "no model"),
    ],
)
def test_the_message_is_found_in_every_shape(body: object, said: str) -> None:
    assert refused(400, body).message == f"the provider answered 400: {said}"


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b"{}", b"7", b'{"error":null}', b'{"error":[]}', b"[" * 5000, b'{"error":{"message":5}}'])
def test_no_body_can_make_it_fail(body: bytes) -> None:
    assert refused(500, body).message.startswith("the provider answered 500")


ERROR_KEYS = st.sampled_from(["error", "message", "detail", "code", "type", "loc", "msg", "metadata", "raw"])
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ERROR_KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(ANY_JSON, st.integers(100, 599))
def test_no_json_can_make_it_fail(value: Any, status: int) -> None:
    assert refused(status, value).status >= 400
    assert read_error_object(value).status >= 400


def test_a_long_message_is_cut() -> None:
    assert len(refused(400, {"error": {"message": "x" * 9000}}).message) < MAX_MESSAGE_CHARS + 50


@pytest.mark.parametrize(
    ("headers", "message", "seconds"),
    [
        ({b"retry-after": b"7"}, "", 7.0),
        ({b"retry-after-ms": b"250", b"retry-after": b"9"}, "", 0.25),
        ({b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT"}, "", None),
        ({b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT", b"date": b"Wed, 21 Oct 2026 07:27:18 GMT"}, "", 42.0),
        ({b"retry-after": b"Wed, 21 Oct 2026 07:28:00 GMT", b"date": b"Wed, 21 Oct 2026 07:28:18 GMT"}, "try again in 3s", 0.0),
        ({b"retry-after": b"Wed, 99 Oct 2026 07:28:00 GMT", b"date": b"\xff"}, "try again in 3s", 3.0),
        ({b"retry-after": b"nan"}, "", None),
        ({b"retry-after": b"-4"}, "", None),
        ({}, "Rate limit reached. Please try again in 7m12.5s.", 432.5),
        ({}, "Please try again in 20ms.", 0.02),
        ({}, "please retry after 3s", 3.0),
        ({}, "try again in 1h2m3s", 3723.0),
        ({}, "try again in a while", None),
        ({}, "", None),
    ],
)
def test_the_wait_is_read(headers: dict[bytes, bytes], message: str, seconds: float | None) -> None:
    assert refused(429, {"error": {"message": message}}, headers).retry_after_s == seconds


def test_a_refusal_names_the_parameter_that_the_provider_named() -> None:
    assert refused(400, {"error": {"message": "x", "param": "messages[0].content"}}).param == "messages[0].content"
    assert refused(422, {"message": "x", "param": "temperature"}).param == "temperature"
    assert refused(400, {"error": {"message": "x", "param": "a key: sk-1 " * 9}}).param is None
    assert refused(500, {"error": {"message": "x", "param": "temperature"}}).param is None


def test_an_error_inside_a_stream_counts_by_the_status_it_names() -> None:
    assert read_error_object({"message": "x", "status_code": 400}).status == 400
    assert read_error_object({"message": "x", "code": "429"}).kind == "rate_limited"
    assert read_error_object({"message": "x", "code": "tool_use_failed"}).status == 502
    assert read_error_object("broken").message == "the provider answered with an error: broken"
    assert read_error_object({"message": "x", "status_code": 400}).message == "the provider answered 400: x"


def test_the_envelope_tells_who_failed_and_whether_to_retry() -> None:
    error = ProviderError("busy", kind="rate_limited", status=429, type="rate_limit_error", code="rate_limited", retry_after_s=2.5)
    error.extra |= {"provider": "mock", "attempts": 3, "nothing": None}
    assert json.loads(write_error(error, "req_1")) == {
        "error": {
            "message": "busy", "type": "rate_limit_error", "code": "rate_limited", "param": None, "status": 429, "origin": "provider",
            "retryable": True, "request_id": "req_1", "retry_after_s": 2.5, "provider": "mock", "attempts": 3,
        }
    }  # fmt: skip


def test_a_callers_mistake_names_its_field() -> None:
    fields = json.loads(write_error(ClientError("n must be", param="n"), "req_1"))["error"]
    assert (fields["param"], fields["origin"], fields["status"], fields["retryable"]) == ("n", "gateway", 400, False)


@pytest.mark.parametrize(
    "secret",
    [
        "sk-proj-abcdefgh12345678", "sk-aig-" + "aB3" * 14, "gsk_abcdefghijkl", "AIzaSyA1234567890abc", "Bearer abcdef123456",
        "eyJhbGciOi.eyJzdWIiOi.sig", "0123456789abcdef0123456789abcdef01234567", "sk-abcd********wxyz",
    ],
)  # fmt: skip
def test_what_looks_like_a_secret_is_masked(secret: str) -> None:
    assert redact(f"Incorrect API key: {secret}, see docs") == "Incorrect API key: [redacted], see docs"


def test_known_secrets_are_masked_and_plain_words_are_not() -> None:
    text = "key hunter2 for model gpt-4o-mini-2024-07-18 at https://x.invalid/docs/key-concepts"
    assert redact(text, ("hunter2", "")) == text.replace("hunter2", "[redacted]")


@needs_recordings
def test_recorded_refusals_keep_the_providers_words() -> None:
    for record in chat_records():
        if record["status"] >= 400:
            error = read_error(record["status"], {}, record["response"].encode())
            inner = json.loads(record["response"])["error"]
            assert inner["message"][:500] in error.message
            assert error.status == record["status"]
