"""Every HTTP head the worker writes, replies and requests alike. Pure.

One function for each direction, and both refuse what could split a message: CR, LF and NUL anywhere, names that are not
tokens, and the fields that say how a body is framed, which only these functions write. A refusal is a ValueError, raised
before a byte exists: it means a bug of ours, as values that come from outside are encoded or checked first.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus

from aigate.errors import GateError

Fields = Sequence[tuple[bytes, bytes]]

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VISIBLE = re.compile(rb"[!-~]+")
_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection", b"host"})
_SPLITTERS = b"\r\n\0"
_MAX_KNOWN_NAMES = 1024

_status_lines = {status: b"HTTP/1.1 %d " % status for status in range(100, 600)}
_status_lines |= {status.value: b"HTTP/1.1 %d %b" % (status, status.phrase.encode()) for status in HTTPStatus}
_known_names: dict[bytes, bytes] = {}  # name → line start; bounded, as a pipe carries names that we did not choose


# Fields checked and encoded, each led by CRLF (and, of a request, its first lines before them): these stand in a head as they are. What comes
# from outside gets there by `field_block` and `request_start` alone; some joined, or with values of ours beside them, are one too.
FieldBlock = bytes


def field_block(fields: Fields) -> FieldBlock:
    return _encode(fields)


def reply_head(
    status: int,
    fields: Fields | FieldBlock,
    *,
    length: int | None = None,
    is_chunked: bool = False,
    connection: bytes = b"",
    date: FieldBlock = b"",
) -> bytes:
    """`length` None and not chunked: no body, or one that ends with the connection. `connection`: that field's value, b"" for none."""
    block = fields if type(fields) is bytes else _encode(fields)
    if length is not None and not connection:
        return b"%b%b%b\r\ncontent-length: %d\r\n\r\n" % (_status_lines[status], date, block, length)
    return b"%b%b%b%b" % (_status_lines[status], date, block, _framing(length, is_chunked, connection))


def request_head(
    method: bytes,
    target: bytes,
    host: bytes,
    fields: Fields | FieldBlock,
    length: int | None,
    *,
    is_chunked: bool = False,
    connection: bytes = b"",
) -> bytes:
    """`length` None and not chunked: no body."""
    return request_start(method, target, host, fields) + _framing(length, is_chunked, connection)


def request_start(method: bytes, target: bytes, host: bytes, fields: Fields | FieldBlock) -> FieldBlock:
    """All of a head but how its body is framed: what many requests share."""
    return _request_line(method, target, host) + (fields if type(fields) is bytes else _encode(fields))


def sized_request_head(start: FieldBlock, length: int) -> bytes:
    """The same head as `request_head`, from its start."""
    return b"%b\r\ncontent-length: %d\r\n\r\n" % (start, length)


def error_fields(error: GateError, request_id: str) -> list[tuple[bytes, bytes]]:
    """The fields that go with an error envelope in JSON."""
    fields = [
        (b"content-type", b"application/json"),
        (b"x-request-id", request_id.encode()),
        (b"x-should-retry", b"true" if error.retryable else b"false"),
    ]
    if error.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % max(1, round(error.retry_after_s))))
    return fields


def _encode(fields: Fields) -> bytes:
    """One pass over the whole block refuses CR, LF and NUL: only the line starts may have added any."""
    try:
        block = b"".join([_known_names[name] + value for name, value in fields])
    except KeyError:
        block = b"".join([_line_start(name) + value for name, value in fields])
    if len(block.translate(None, _SPLITTERS)) != len(block) - 2 * len(fields):
        raise ValueError("a header value holds CR, LF or NUL")
    return block


def _line_start(name: bytes) -> bytes:
    start = _known_names.get(name)
    if start is None:
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"{name[:80]!r} is no header name")
        if name.lower() in _FRAMING:
            raise ValueError(f"{name!r} is written by the framing, not by its caller")
        start = b"\r\n" + name + b": "
        if len(_known_names) < _MAX_KNOWN_NAMES:
            _known_names[name] = start
    return start


def _framing(length: int | None, is_chunked: bool, connection: bytes) -> bytes:
    """The end of a head: how the body is cut, what becomes of the connection, the empty line."""
    if connection:
        connection = b"\r\nconnection: " + connection
    if length is not None:
        return b"\r\ncontent-length: %d%b\r\n\r\n" % (length, connection)
    return (b"\r\ntransfer-encoding: chunked%b\r\n\r\n" if is_chunked else b"%b\r\n\r\n") % connection


@lru_cache(4096)
def _request_line(method: bytes, target: bytes, host: bytes) -> bytes:
    if not _TOKEN.fullmatch(method) or not _VISIBLE.fullmatch(target) or not _VISIBLE.fullmatch(host):
        raise ValueError("the method, target or host of a request head holds bytes that may not stand there")
    return b"%b %b HTTP/1.1\r\nhost: %b" % (method, target, host)
