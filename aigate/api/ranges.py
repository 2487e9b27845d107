"""Stored bytes as a reply: the whole, or the one range that a request names (RFC 9110 §14)."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import Request, Response
from fastapi.responses import StreamingResponse

from aigate.errors import ClientError

_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))\Z")

Opened = Callable[[int, int], Awaitable[AsyncIterator[bytes]]]  # start, end → the bytes between


async def bytes_reply(request: Request, size: int, opened: Opened, headers: dict[str, str], *, etag: str = "") -> Response:
    """`headers`: of the reply, with its content-type. `etag`: a range that a request wants of another version is not given (If-Range)."""
    if request.state.is_head:
        return Response(headers={**headers, "content-length": str(size), "accept-ranges": "bytes"})
    is_other = request.headers.get("if-range", etag) != etag
    found = None if is_other else read_range(request.headers.get("range"), size)
    start, end = found or (0, size)
    headers = {**headers, "content-length": str(end - start), "accept-ranges": "bytes"}
    if found is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
    return StreamingResponse(await opened(start, end), 200 if found is None else 206, headers)


def read_range(value: str | None, size: int) -> tuple[int, int] | None:
    """(start, end) of what is asked for; None: the whole, also where several ranges are asked for, or in another unit."""
    match = None if value is None else _RANGE.match(value.replace(" ", ""))
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        start, end = max(0, size - int(suffix)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None
    if start >= end:
        raise ClientError(f"range: the file has {size} bytes, none of them at {value!r:.60}.", status=416, code="range_not_satisfiable", param="range")
    return start, end
