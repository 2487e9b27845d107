"""Bytes from a client → request heads and bodies. Pure: knows no socket and no route.

llhttp (httptools) judges the head, one parser a head, fed once: it refuses every ambiguity that request smuggling lives on.
Bodies are cut here, as a parser that runs on into the next request would take it past our caps. What is refused is a ClientError.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_address

import httptools
import msgspec

from aigate.errors import ClientError

MAX_HEAD_BYTES = 64 << 10
MAX_HEAD_LINES = 128
MAX_TARGET_BYTES = 16 << 10
MAX_REMEMBERED_BYTES = 4 << 10  # of a connection's last head
MAX_MISSES = 8  # then this client's heads are taken to differ each time
_MAX_LENGTH_DIGITS = 15
_MAX_CHUNK_LINE_BYTES = 1 << 10
_MAX_TRAILER_BYTES = 8 << 10

_LENGTH_LINE = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ?([0-9]{1,15})\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")


class RequestHead:
    """One parsed head. `headers` have lower-case names, repeated ones joined by a comma; `length` is the body's (0: none, None: chunked);
    `keeps_alive` what the client asked for; `path` has one trailing slash less than it came with and is not percent-decoded.

    A client says the same head again and again: `handler` and `key_digest` are what others found out by it alone, None until they have."""

    __slots__ = (
        "method", "target", "path", "query", "headers", "is_http_1_0", "length", "keeps_alive", "is_websocket", "handler", "key_digest",
    )  # fmt: skip


class _Callbacks(msgspec.Struct):
    """What the parser calls. C functions where no header repeats: no Python frame per header."""

    on_url: Callable[[bytes], None]
    on_header: Callable[[bytes, bytes], None]


def read_head(data: bytes) -> RequestHead:
    """`data` is one whole head, its empty line included."""
    header_count = data.count(b"\n") - 2
    if header_count > MAX_HEAD_LINES or len(data) > MAX_HEAD_BYTES:
        raise _head_too_large()
    targets: list[bytes] = []
    raw_headers: dict[bytes, bytes] = {}
    parser = httptools.HttpRequestParser(_Callbacks(targets.append, raw_headers.__setitem__))
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # the head is whole; whether anything is upgraded is for us to say
    except httptools.HttpParserError as problem:
        raise _bad_head(data, raw_headers, problem) from None
    if not targets:
        raise ClientError("the request head is empty")
    head = RequestHead()
    head.method = parser.get_method().decode()
    head.target = targets[0]
    headers = {name.lower(): value for name, value in raw_headers.items()}
    if len(headers) != header_count:
        headers = _join_repeated(data)
    if b" \r\n" in data or (b"\t" in data and b"\t\r\n" in data):  # the parser keeps the white space behind a value
        headers = {name: value.rstrip(b" \t") for name, value in headers.items()}
    head.headers = headers
    head.is_websocket = False
    head.is_http_1_0 = is_http_1_0 = not data.endswith(b" HTTP/1.1", 0, data.find(b"\r"))
    head.keeps_alive = not is_http_1_0
    # The parser has refused conflicts, repeats and wrong digits.
    head.length = int(headers.get(b"content-length", b"0"))
    # From here on what most requests need not: it is judged where there is something to judge.
    if is_http_1_0 or len(head.target) > MAX_TARGET_BYTES:
        _check_request_line(head, data)
    if head.target[0] != 0x2F or b"," in headers.get(b"host", b","):
        _set_host(head)
    if b"connection" in headers:
        _set_connection(head)
    if b"transfer-encoding" in headers or b"content-encoding" in headers:
        _set_codings(head)
    head.path, head.query = _split_target(head.target)
    head.handler = head.key_digest = None
    return head


@lru_cache(1024)  # clients ask for few targets; what else comes only pushes the oldest out
def _split_target(target: bytes) -> tuple[str, str]:
    """(path, query). A trailing slash says nothing."""
    path, _, query = target.decode().partition("?")
    return path[:-1] if path[-1:] == "/" and len(path) > 1 else path, query


class HeadMemory:
    """One connection's last head, which stays here as long as the connection. A client's next head is mostly the same but for its
    body's length, and is not judged a second time. `last`: all bytes of it; b"" = there is none to go by."""

    __slots__ = ("last", "head", "_before", "_after", "_misses")

    def __init__(self) -> None:
        self.last = self._before = self._after = b""  # the latter two: what is around its length
        self._misses = 0  # in a row

    def read(self, data: bytes) -> RequestHead:
        """As `read_head`. What it returned before must not be in use any more."""
        before, after = self._before, self._after
        if before and data.startswith(before) and data.endswith(after):
            digits = data[len(before) : len(data) - len(after)]
            if digits.isdigit() and len(digits) <= _MAX_LENGTH_DIGITS:
                head = self.head
                head.headers = {**head.headers, b"content-length": digits}
                head.length = int(digits)
                self.last = data
                self._misses = 0
                return head
        self.last = b""
        head = read_head(data)
        if self._misses < MAX_MISSES:
            self._misses += 1
            self._learn(data, head)
        return head

    def _learn(self, data: bytes, head: RequestHead) -> None:
        found = _LENGTH_LINE.search(data) if len(data) <= MAX_REMEMBERED_BYTES and head.length is not None else None
        if found is None:
            self._before = b""
        else:
            self.last, self.head, self._before, self._after = data, head, data[: found.start(1)], data[found.end(1) :]


def _join_repeated(data: bytes) -> dict[bytes, bytes]:
    headers: dict[bytes, bytes] = {}

    def on_header(name: bytes, value: bytes) -> None:
        name = name.lower()
        headers[name] = headers[name] + b", " + value if name in headers else value

    try:
        httptools.HttpRequestParser(_Callbacks(bytes, on_header)).feed_data(data)
    except httptools.HttpParserUpgrade:
        pass  # as above
    return headers


def _check_request_line(head: RequestHead, data: bytes) -> None:
    if head.is_http_1_0 and not data.endswith(b" HTTP/1.0", 0, data.find(b"\r")):
        raise _wrong_version()
    if len(head.target) > MAX_TARGET_BYTES:
        raise ClientError(f"the request target is longer than {MAX_TARGET_BYTES} bytes", status=414)


def _set_host(head: RequestHead) -> None:
    """Exactly one host; the one of an absolute target is the truth (RFC 9112 §3.2.2), and its path is all that stays."""
    headers = head.headers
    target = head.target
    if target[0] != 0x2F and target != b"*":
        if head.method == "CONNECT":
            raise ClientError("CONNECT is not supported: this is no forward proxy", status=501)
        scheme, found, rest = target.partition(b"://")
        if not found or scheme.lower() not in (b"http", b"https"):
            raise ClientError("the request target must be a path, such as /v1/models, or an http URL")
        cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        headers[b"host"] = rest[:cut].rpartition(b"@")[2]
        head.target = rest[cut:] if rest[cut : cut + 1] == b"/" else b"/" + rest[cut:]
    host = headers.get(b"host")
    if host is None:
        if not head.is_http_1_0:
            raise ClientError("the Host header is missing")
    elif b"," in host:
        raise ClientError("there is more than one Host header")


def _set_connection(head: RequestHead) -> None:
    headers = head.headers
    connection = headers[b"connection"]
    options = {option.strip() for option in connection.lower().split(b",")}
    if b"close" in options:
        head.keeps_alive = False
    elif b"keep-alive" in options:
        head.keeps_alive = True
    head.is_websocket = b"upgrade" in options and headers.get(b"upgrade", b"").lower() == b"websocket" and head.method == "GET"


def _set_codings(head: RequestHead) -> None:
    headers = head.headers
    if b"transfer-encoding" in headers:
        if head.is_http_1_0:
            raise ClientError("Transfer-Encoding has no meaning in HTTP/1.0")
        if headers[b"transfer-encoding"].lower() != b"chunked":
            raise ClientError("only the transfer coding chunked is supported", status=501)
        head.length = None
    if b"content-encoding" in headers and headers[b"content-encoding"].lower() != b"identity":
        raise ClientError("compressed request bodies are not supported: send it without Content-Encoding", status=415)


def _bad_head(data: bytes, raw_headers: dict[bytes, bytes], problem: Exception) -> ClientError:
    if data.startswith(b"PRI * HTTP/2"):
        return _wrong_version()
    if isinstance(problem, httptools.HttpParserInvalidMethodError) and re.match(rb"[A-Z-]+ [!-~]+ HTTP/", data):
        return ClientError("the request method is not supported", status=501)
    headers = {name.lower(): value.lower() for name, value in raw_headers.items()}
    if headers.get(b"transfer-encoding", b"chunked") != b"chunked" and b"content-length" not in headers:
        return ClientError("only the transfer coding chunked is supported", status=501)
    return ClientError(f"the request head is malformed: {problem}")


def _wrong_version() -> ClientError:
    return ClientError("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)


def _head_too_large() -> ClientError:
    return ClientError(f"the request head is over {MAX_HEAD_BYTES} bytes or {MAX_HEAD_LINES} lines", status=431)


class HeadBuffer:
    """Gathers one head that comes in pieces, looking at each byte once."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def add(self, data: bytes) -> bytes | None:
        """All bytes so far, once they hold the whole head, else None."""
        held = self._bytes
        looked_at = max(0, len(held) - 3)
        held += data
        end = held.find(b"\r\n\r\n", looked_at)
        if (end if end >= 0 else len(held)) > MAX_HEAD_BYTES:
            raise _head_too_large()
        if end < 0:
            if not 0x41 <= held[0] <= 0x5A or held.find(b"\n\n", looked_at) >= 0:
                raise ClientError("this is no HTTP/1.1 request (plain HTTP is spoken here, not TLS)")
            return None
        return bytes(held)


# --- bodies ---------------------------------------------------------------------------------------------------------------
# Each has feed(data) → the payload in it, `is_complete`, and `rest`: the bytes behind the end, which belong to the next request.


class SizedBody:
    __slots__ = ("_missing_bytes", "is_complete", "rest")

    def __init__(self, length: int) -> None:
        self._missing_bytes = length
        self.is_complete = length == 0
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        missing = self._missing_bytes
        if len(data) < missing:
            self._missing_bytes = missing - len(data)
            return data
        self.is_complete = True
        self.rest = data[missing:]
        return data[:missing] if self.rest else data


class RawBody:
    """What follows an upgrade: everything, until the connection ends."""

    __slots__ = ()
    is_complete = False
    rest = b""

    def feed(self, data: bytes) -> bytes:
        return data


class DroppedBody:
    """What is left of a body that broke a rule."""

    __slots__ = ()
    is_complete = False
    rest = b""

    def feed(self, data: bytes) -> bytes:
        return b""


class ChunkedBody:
    """The chunked coding, strictly: CRLF alone ends a line, extensions are skipped, trailers dropped."""

    __slots__ = ("_line", "_missing_bytes", "_part", "_trailer_bytes", "is_complete", "rest")

    def __init__(self) -> None:
        self._part = "size"  # size | data | end (of a chunk) | trailer
        self._line = b""  # a line cut by the end of a read
        self._missing_bytes = 0
        self._trailer_bytes = 0
        self.is_complete = False
        self.rest = b""

    def feed(self, data: bytes) -> bytes:
        pieces = []
        at = 0
        while not self.is_complete:
            if self._part == "data":
                piece = data[at : at + self._missing_bytes]
                pieces.append(piece)
                at += len(piece)
                self._missing_bytes -= len(piece)
                if self._missing_bytes:
                    break
                self._part = "end"
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                if len(self._line) > _MAX_CHUNK_LINE_BYTES:
                    raise _bad_chunks("a line is too long")
                break
            self._take_line(self._line + data[at : end + 1])
            self._line = b""
            at = end + 1
        if self.is_complete:
            self.rest = data[at:]
        return b"".join(pieces)

    def _take_line(self, line: bytes) -> None:
        if line[-2:] != b"\r\n" or len(line) > _MAX_CHUNK_LINE_BYTES:
            raise _bad_chunks("a line is too long or does not end with CRLF")
        line = line[:-2]
        if self._part == "end":
            if line:
                raise _bad_chunks("a chunk is longer than it says")
            self._part = "size"
        elif self._part == "size":
            size = _CHUNK_LINE.fullmatch(line)
            if size is None:
                raise _bad_chunks("a chunk has no size")
            self._missing_bytes = int(size[1], 16)
            self._part = "data" if self._missing_bytes else "trailer"
        elif not line:
            self.is_complete = True
        else:
            self._trailer_bytes += len(line)
            if self._trailer_bytes > _MAX_TRAILER_BYTES or not _TRAILER.fullmatch(line):
                raise _bad_chunks("the trailer is malformed or too long")


def _bad_chunks(problem: str) -> ClientError:
    return ClientError(f"the chunked request body is malformed: {problem}")


def is_allowed_host(host: bytes, allowed: frozenset[str]) -> bool:
    """DNS rebinding: a page on a foreign name that resolves to us must not get through. Loopback is always fine."""
    name = host.decode("latin-1").lower()
    name = name[1:].partition("]")[0] if name[:1] == "[" else name.partition(":")[0]
    if name in allowed or name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
