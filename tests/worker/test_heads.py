"""Heads are exact, and nothing that could split a message gets into one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.errors import GatewayError
from aigate.worker.heads import error_fields, field_block, reply_head, request_head


def test_reply_heads_are_exact():
    fields = [(b"content-type", b"text/plain"), (b"x-empty", b"")]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\nx-empty: \r\n"
    assert reply_head(200, fields, length=5) == head + b"content-length: 5\r\n\r\n"
    assert reply_head(200, fields, is_chunked=True, connection=b"close") == head + (
        b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    )
    assert reply_head(200, field_block(fields)) == head + b"\r\n"
    assert reply_head(529, (), date=field_block([(b"date", b"now")])) == b"HTTP/1.1 529 \r\ndate: now\r\n\r\n"


def test_request_heads_are_exact():
    assert request_head(b"POST", b"/v1?a=b", b"h:1", [(b"accept", b"*/*")], 3) == (
        b"POST /v1?a=b HTTP/1.1\r\nhost: h:1\r\naccept: */*\r\ncontent-length: 3\r\n\r\n"
    )
    assert request_head(b"GET", b"/", b"h", (), None) == b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"


@pytest.mark.parametrize("bad", [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\0b", b"\r\n", b"\n", b"\r"])
def test_values_that_could_split_a_head_are_refused_wherever_they_stand(bad):
    for fields in ([(b"x", bad), (b"y", b"z")], [(b"y", b"z"), (b"x", bad)]):
        for write in (
            lambda f: reply_head(200, f, length=0),
            lambda f: request_head(b"GET", b"/", b"h", f, None),
            field_block,
        ):
            with pytest.raises(ValueError, match="CR, LF or NUL"):
                write(fields)


@pytest.mark.parametrize("name", [b"", b"a b", b"a:b", b"a\r\nb", b"\xc3\xa9", b"(x)"])
def test_names_that_are_no_tokens_are_refused_each_time(name):
    for _ in range(2):
        with pytest.raises(ValueError, match="no header name"):
            reply_head(200, [(name, b"v")])


@pytest.mark.parametrize("name", [b"Content-Length", b"transfer-encoding", b"connection", b"Host"])
def test_fields_that_frame_a_body_cannot_come_from_outside(name):
    with pytest.raises(ValueError, match="framing"):
        reply_head(200, [(name, b"v")])


@pytest.mark.parametrize(
    ("method", "target", "host"),
    [(b"GET ", b"/", b"h"), (b"GET", b"/ HTTP/1.1\r\nx: y", b"h"), (b"GET", b"", b"h"), (b"GET", b"/", b"h\r\nx: y"), (b"GET", b"/\xff", b"h")],
)
def test_request_lines_that_could_split_a_head_are_refused(method, target, host):
    with pytest.raises(ValueError, match="request head"):
        request_head(method, target, host, (), None)


@given(st.lists(st.tuples(st.binary(max_size=5), st.binary(max_size=20)), max_size=4))
def test_a_head_has_exactly_the_lines_it_was_given_or_is_refused(fields):
    try:
        head = reply_head(200, fields)
    except ValueError:
        return
    lines = head.split(b"\r\n")
    assert lines[1:-2] == [name + b": " + value for name, value in fields] and lines[-2:] == [b"", b""]


def test_error_fields_tell_whether_and_when_to_retry():
    error = GatewayError("busy", status=503, retryable=True, retry_after_s=0.2)
    assert error_fields(error, "req_1") == [
        (b"content-type", b"application/json"),
        (b"x-request-id", b"req_1"),
        (b"x-should-retry", b"true"),
        (b"retry-after", b"1"),
    ]
    assert (b"x-should-retry", b"false") in error_fields(GatewayError("bug"), "req_1")
