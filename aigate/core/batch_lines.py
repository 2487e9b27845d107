"""Lines of batches: a file cut into them, each checked, and the lines that are written of them. Pure; files of any size, piece by piece.

A line that cannot be sent is a line of the error file, and the others go on; only what makes the whole ambiguous (a custom_id twice) is
the batch's mistake. Numbers count the lines of the file from 1, as an editor shows them.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec import Raw

from aigate.core.batch import LineError
from aigate.errors import ClientError

MAX_CUSTOM_ID_CHARS = 512
_PREFIX = b'{"id":"batch_req_'
_NUMBER_CHARS = 6

_encode = msgspec.json.Encoder().encode


class Cutter:
    """Cuts pieces of a file into lines. One longer than `max_line_bytes` is given as None, and not kept."""

    def __init__(self, max_line_bytes: int):
        self._max_line_bytes = max_line_bytes
        self._rest = bytearray()
        self._is_too_long = False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        first, *others = piece.split(b"\n")
        self._add(first)
        for part in others:
            yield self._take()
            self._add(part)

    def end(self) -> Iterator[bytes | None]:
        """The last line, where no line break ends it."""
        if self._rest or self._is_too_long:
            yield self._take()

    def _add(self, part: bytes) -> None:
        if not self._is_too_long:
            self._rest += part
            if len(self._rest) > self._max_line_bytes:
                self._is_too_long = True
                self._rest.clear()

    def _take(self) -> bytes | None:
        line = None if self._is_too_long else bytes(self._rest)
        self._rest.clear()
        self._is_too_long = False
        return line


class Request(msgspec.Struct, frozen=True):
    """A line that can be sent."""

    custom_id: str
    body: bytes


class BadLine(msgspec.Struct, frozen=True):
    custom_id: str | None
    error: LineError


class _Line(msgspec.Struct):
    custom_id: str
    url: str
    body: Raw
    method: str = "POST"


class _Named(msgspec.Struct):
    custom_id: object = None


class _How(msgspec.Struct):
    stream: object = None
    background: object = None


_read_line = msgspec.json.Decoder(_Line).decode
_read_name = msgspec.json.Decoder(_Named).decode
_read_how = msgspec.json.Decoder(_How).decode


def is_blank(line: bytes | None) -> bool:
    return line is not None and not line.strip()


def read_line(line: bytes | None, number: int, endpoint: str) -> Request | BadLine:
    if line is None:
        return BadLine(None, LineError("line_too_long", f"Line {number} is longer than a request may be.", number))
    try:
        found = _read_line(line)
    except msgspec.ValidationError as problem:
        return BadLine(custom_id_of(line), LineError("invalid_request", f"Line {number}: {_words(str(problem))}", number))
    except (msgspec.DecodeError, RecursionError) as problem:
        return BadLine(None, LineError("invalid_json_line", f"Line {number} is not valid JSON: {problem}", number))
    wrong = _what_is_wrong(found, endpoint)
    if wrong is not None:
        param, words = wrong
        return BadLine(found.custom_id, LineError("invalid_request", f"Line {number}: {param}: {words}", number, param))
    return Request(found.custom_id, bytes(found.body))


def custom_id_of(line: bytes) -> str | None:
    try:
        name = _read_name(line).custom_id
    except (msgspec.DecodeError, RecursionError):  # also what is no object
        return None
    return name if isinstance(name, str) else None


def _what_is_wrong(line: _Line, endpoint: str) -> tuple[str, str] | None:
    """(field, words)."""
    if not 0 < len(line.custom_id) <= MAX_CUSTOM_ID_CHARS:
        return "custom_id", f"must have 1 to {MAX_CUSTOM_ID_CHARS} characters."
    if line.method.upper() != "POST":
        return "method", f"must be POST, got {line.method[:20]!r}."
    if line.url != endpoint:
        return "url", f"must be the batch's endpoint, {endpoint}, got {line.url[:100]!r}."
    body = bytes(line.body)
    if not body.startswith(b"{"):
        return "body", "must be a JSON object: the request as it would be sent alone."
    if b'"stream"' in body and _read_how(body).stream:
        return "body.stream", "a batch's answers are not streamed; leave it out."
    if b'"background"' in body and _read_how(body).background:
        return "body.background", "a batch waits for its answers itself; leave it out."
    return None


def _words(problem: str) -> str:
    """msgspec's words, with the field named as the caller knows it."""
    return problem.replace("$.", "") + "."


class InputCheck:
    """Looks a whole input through before anything of it is sent. Raises ClientError for what no batch can be made of."""

    def __init__(self, max_lines: int, max_line_bytes: int):
        self.total = 0
        self._max_lines = max_lines
        self._cutter = Cutter(max_line_bytes)
        self._number = 0
        self._seen: dict[str, int] = {}  # custom_id → line

    def feed(self, piece: bytes) -> None:
        for line in self._cutter.feed(piece):
            self._add(line)

    def end(self) -> None:
        for line in self._cutter.end():
            self._add(line)
        if not self.total:
            raise _bad_input("the file has no lines.", "empty_file")

    def _add(self, line: bytes | None) -> None:
        self._number += 1
        if is_blank(line):
            return
        self.total += 1
        if self.total > self._max_lines:
            raise _bad_input(f"the file has more than {self._max_lines} lines, the most of one batch; make several of it.", "too_many_lines")
        name = None if line is None else custom_id_of(line)
        if name is None:
            return
        first = self._seen.setdefault(name, self._number)
        if first != self._number:
            words = f"the custom_id {name[:100]!r} of line {self._number} is that of line {first} already; each line needs its own."
            raise _bad_input(words, "duplicate_custom_id")


def _bad_input(words: str, code: str) -> ClientError:
    return ClientError(f"input_file_id: {words}", code=code, param="input_file_id")


# --- what is written ----------------------------------------------------------------------------------------------------------


def reply_line(batch_id: str, number: int, custom_id: str, status: int, request_id: str, body: bytes) -> bytes:
    """`body`: the reply, JSON."""
    return b'%b,"custom_id":%b,"response":{"status_code":%d,"request_id":"%b","body":%b},"error":null}\n' % (
        _head(batch_id, number),
        _encode(custom_id),
        status,
        request_id.encode(),
        _on_one_line(body),
    )


def error_line(batch_id: str, number: int, custom_id: str | None, error: LineError) -> bytes:
    said = {"code": error.code, "message": error.message, "line": number, "param": error.param}
    return b'%b,"custom_id":%b,"response":null,"error":%b}\n' % (_head(batch_id, number), _encode(custom_id), _encode(said))


def number_of(line: bytes, batch_id: str) -> int | None:
    """The number in a line that was written; None where it is not whole."""
    head = _PREFIX + batch_id.removeprefix("batch_").encode()
    digits = line[len(head) : len(head) + _NUMBER_CHARS]
    if not line.startswith(head) or not line.endswith(b"}\n") or len(digits) < _NUMBER_CHARS:
        return None
    try:
        return int(digits, 16)
    except ValueError:
        return None


def _head(batch_id: str, number: int) -> bytes:
    return b'%b%b%06x"' % (_PREFIX, batch_id.removeprefix("batch_").encode(), number)


def _on_one_line(body: bytes) -> bytes:
    """JSON has line breaks between its parts only. What is no JSON becomes a string."""
    try:
        msgspec.json.decode(body, type=Raw)
    except (msgspec.DecodeError, RecursionError):
        return _encode(body.decode("utf-8", "replace"))
    return body.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in body or b"\r" in body else body
