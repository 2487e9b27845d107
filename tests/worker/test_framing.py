"""Bodies cut out of bytes: the same however the bytes are sliced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.errors import ClientError
from aigate.worker.framing import ChunkedBody, HeadBuffer, SizedBody, is_allowed_host, read_head


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
