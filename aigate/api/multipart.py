"""An upload as it comes: the bytes of its one file streamed on, its few fields kept. Nothing is buffered whole.

Owns what multipart/form-data may look like here and the words about what is wrong with it. What a field means is the route's business.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from fastapi import Request
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from aigate.errors import ClientError

MAX_FIELD_BYTES, MAX_FIELDS = 16 << 10, 64
MAX_FILENAME_CHARS = 255


class Upload:
    """`pieces` first, to its end; then `fields` and `filename`."""

    def __init__(self, request: Request):
        self.fields: dict[str, str] = {}
        self.filename = ""
        self._request = request
        self._parser = _parser(request.headers, self)
        self._has_file = self._is_file = self._is_whole = False
        self._header = self._name = ""
        self._value = bytearray()
        self._came: list[bytes] = []  # of the file, not yet given on

    async def pieces(self) -> AsyncIterator[bytes]:
        try:
            async for data in self._request.stream():
                self._feed(data)
                for piece in self._came:
                    yield piece
                self._came.clear()
        except ClientDisconnect:
            raise ClientError("The upload ended before it was whole.") from None
        if not self._is_whole:
            raise ClientError("The body is not whole: its last multipart boundary is missing.")
        if not self._has_file:
            raise ClientError("file: missing; send it as a part with a filename.", param="file")

    def _feed(self, data: bytes) -> None:
        try:
            self._parser.write(data)
        except ClientError:
            raise
        except ValueError as problem:  # the parser's own errors are among them
            raise ClientError(f"The body cannot be read as multipart/form-data: {str(problem)[:200]}") from None

    # --- the parser's callbacks ---

    def on_part_begin(self) -> None:
        self._name, self._is_file = "", False
        self._value.clear()

    def on_header_begin(self) -> None:
        self._header = ""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end].decode("latin-1").lower()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self._header == "content-disposition":
            self._value += data[start:end]

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._value.decode("latin-1"))
        self._value.clear()
        self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._is_file = b"filename" in options
        if not self._is_file:
            return
        if self._name != "file" or self._has_file:
            words = "one file a request; upload the others on their own" if self._has_file else "the file is sent as 'file'"
            raise ClientError(f"{self._name[:80] or 'the part without a name'}: {words}.", param=self._name[:80] or None)
        self._has_file = True
        name = options[b"filename"].decode("utf-8", "replace").replace("\\", "/").rpartition("/")[2]
        self.filename = "".join(char for char in name if char.isprintable())[-MAX_FILENAME_CHARS:] or "file"

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._came.append(data[start:end])
            return
        self._value += data[start:end]
        if len(self._value) > MAX_FIELD_BYTES:
            raise ClientError(f"{self._name[:80]}: has more than {MAX_FIELD_BYTES} bytes; a file is sent with a filename.", param=self._name[:80] or None)

    def on_part_end(self) -> None:
        if self._is_file:
            return
        if not self._name or len(self.fields) >= MAX_FIELDS:
            raise ClientError(f"The form has a part without a name, or more than {MAX_FIELDS} fields.")
        self.fields[self._name] = self._value.decode("utf-8", "replace").strip()

    def on_end(self) -> None:
        self._is_whole = True


_CALLBACKS = (
    "on_part_begin", "on_header_begin", "on_header_field", "on_header_value", "on_headers_finished", "on_part_data", "on_part_end", "on_end",
)  # fmt: skip


def _parser(headers: Mapping[str, str], upload: Upload) -> MultipartParser:
    kind, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise ClientError("A file is sent as multipart/form-data, with its boundary in the content-type header.")
    try:
        return MultipartParser(boundary, {name: getattr(upload, name) for name in _CALLBACKS})  # type: ignore[arg-type]
    except ValueError as problem:
        raise ClientError(f"The multipart boundary is not usable: {str(problem)[:200]}") from None
