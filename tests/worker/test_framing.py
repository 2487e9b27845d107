"""Bodies cut out of bytes: the same however the bytes are sliced."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.errors import ClientError
from aigate.worker.framing import ChunkedBody, HeadBuffer, HeadMemory, RequestHead, SizedBody, is_allowed_host, read_head


def slices(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(data) + 1) for cut in cuts}), len(data)]
    return [data[start:end] for start, end in zip(edges, edges[1:], strict=False) if start != end]


def fed(body: SizedBody | ChunkedBody, pieces: list[bytes]) -> tuple[bytes, bytes]:
    """(payload, what lies behind the body)"""
    payload = b""
    for number, piece in enumerate(pieces):
        payload += body.feed(piece)
        if body.is_complete:
            return payload, body.rest + b"".join(pieces[number + 1 :])
    raise AssertionError("the body has no end")


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 500), max_size=12), st.binary(max_size=9))
def test_chunked_bodies_are_the_same_however_they_are_sliced(chunks, cuts, behind):
    wire = b"".join([b"%X;a=b\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]) + b"0\r\nx-trailer: y\r\n\r\n" + behind
    assert fed(ChunkedBody(), slices(wire, cuts)) == (b"".join(chunks), behind)


@given(st.binary(max_size=60), st.binary(max_size=9), st.lists(st.integers(0, 100), max_size=8))
def test_sized_bodies_end_at_their_length(payload, behind, cuts):
    body = SizedBody(len(payload))
    if not payload:
        assert body.is_complete
        return
    assert fed(body, slices(payload + behind, cuts)) == (payload, behind)


@given(st.binary(max_size=40), st.lists(st.integers(0, 100), max_size=5))
def test_garbage_never_becomes_more_than_a_client_error(garbage, cuts):
    body = ChunkedBody()
    try:
        for piece in slices(garbage, cuts):
            if not body.is_complete:
                body.feed(piece)
    except ClientError as error:
        assert error.status == 400


@given(st.lists(st.integers(0, 100), max_size=8))
def test_a_head_is_gathered_however_it_is_sliced(cuts):
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    buffer = HeadBuffer()
    answers = [buffer.add(piece) for piece in slices(head, cuts)]
    assert answers[-1] == head and not any(answers[:-1])


FRAGMENTS = [
    b"GET", b"POST", b"CONNECT", b" ", b"/", b"*", b"http://", b"h:1", b"?", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\n", b"\r", b":",
    b"Host: a", b"Connection: upgrade", b"Upgrade: h2c", b"Content-Length: 3", b"Transfer-Encoding: chunked", b"\0", b"\xff", b"",
]  # fmt: skip


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(FRAGMENTS), max_size=14).map(b"".join)))
def test_any_bytes_as_a_head_are_read_or_refused(data):
    try:
        read_head(data + b"\r\n\r\n")
    except ClientError as error:
        assert 400 <= error.status < 600


def test_endless_trailers_and_chunk_lines_are_refused():
    with pytest.raises(ClientError, match="trailer"):
        ChunkedBody().feed(b"0\r\n" + b"x: y\r\n" * 5000)
    body = ChunkedBody()
    with pytest.raises(ClientError, match="too long"):
        for _ in range(2000):
            body.feed(b"1")


@pytest.mark.parametrize("host", [b"localhost", b"app.localhost:1", b"127.9.9.9", b"[::1]", b"named:80"])
def test_loopback_and_named_hosts_are_allowed(host):
    assert is_allowed_host(host, frozenset({"named"}))


@pytest.mark.parametrize("host", [b"", b"localhost.evil", b"named.evil", b"10.0.0.1", b"[::2]", b"[", b"127.0.0.1.evil"])
def test_other_hosts_are_not(host):
    assert not is_allowed_host(host, frozenset({"named"}))


HEADS = st.tuples(
    st.sampled_from(["POST /v1/chat/completions", "POST /v1/embeddings/", "GET /x?y=1"]),
    st.sampled_from([" HTTP/1.1", " HTTP/1.0", " HTTP/2.0"]),
    st.lists(
        st.sampled_from(
            [
                "Host: a", "host: b, c", "Authorization: Bearer k", "x-note: Content-Length: 5", "connection: close", "Expect: 100-continue",
                "Content-Length: 5", "content-length: 12", "Content-Length:12", "content-length: 007", "content-length: 1 2", "CONTENT-LENGTH: 3",
                "content-length: -1", "transfer-encoding: chunked", "content-encoding: gzip", "content-length: 9999999999999999999999",
            ]
        ),
        max_size=4,
    ),
).map(lambda parts: "\r\n".join([parts[0] + parts[1], *parts[2], "", ""]).encode())  # fmt: skip


def judged(read, data):
    try:
        head = read(data)
    except ClientError as error:
        return error.status, error.message
    return {name: getattr(head, name) for name in RequestHead.__slots__}


@settings(max_examples=400)
@given(st.lists(HEADS, min_size=1, max_size=3), st.lists(st.integers(0, 2), min_size=2, max_size=14))
def test_a_head_remembered_is_judged_as_if_it_were_the_first(heads, order):
    memory = HeadMemory()
    for place in order:
        data = heads[place % len(heads)]
        assert judged(memory.read, data) == judged(read_head, data)


def test_a_clients_next_head_is_not_parsed_again_for_another_length():
    memory = HeadMemory()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nx-a: b\r\n\r\n"
    first = memory.read(head % 7)
    again = memory.read(head % 12345)
    assert again is first and again.length == 12345 and again.headers[b"content-length"] == b"12345"
    assert memory.read(head.replace(b"x-a: b", b"x-a: c") % 7) is not first
