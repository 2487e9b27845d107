"""fetch: media that a caller gave by URL, read for a target that takes data only. Off the common path; nothing is sent to a model before.

Goes out by the guard alone, bears no credential and no header of the caller's, and is bounded in bytes, time, redirects and number.
Whatever goes wrong is the caller's to mend: a ClientError that names the field.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64encode
from collections.abc import Sequence
from contextlib import closing
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from aigate import __version__
from aigate.core.caller_url import read_caller_url
from aigate.dialects.fetchable import Wanted
from aigate.errors import ClientError, ProviderError
from aigate.guard import Guard
from aigate.worker.client import Origin, decode_body
from aigate.worker.guard import GuardedPool
from aigate.worker.heads import field_block, request_head

MAX_URLS, MAX_REDIRECTS, MAX_URL_CHARS = 20, 3, 8192
_FIELDS = field_block([(b"accept", b"*/*"), (b"accept-encoding", b"identity"), (b"user-agent", f"aigate/{__version__}".encode())])
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TYPES = {"image": ("image/",), "audio": ("audio/",), "document": ("application/pdf", "text/")}
_PROBLEMS = {"refused": "no connection could be made", "timeout": "it took too long"}  # ProviderError.kind → what it means here
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})  # what stores say of files they know nothing about
_MARKS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"%PDF-", "application/pdf"),
    (b"ID3", "audio/mpeg"),
)  # fmt: skip


class Fetched(NamedTuple):
    media_type: str
    data: str  # base64


Known = dict[str, Fetched]  # by URL: what one call has fetched already


class Fetcher:
    """One per worker. `is_on`: the operator lets it fetch."""

    def __init__(
        self, guard: Guard, *, is_on: bool, max_bytes: int, timeout_s: float, tls: ssl.SSLContext, loop: asyncio.AbstractEventLoop
    ):
        self._guard = guard
        self._is_on = is_on
        self._max_bytes = max_bytes
        self._timeout_s = timeout_s
        self._tls = tls
        self._loop = loop

    async def fill(self, wanted: Sequence[Wanted], known: Known) -> None:
        """Puts data in the place of each URL. Raises ClientError where that cannot be done."""
        missing = {media.url: Wanted(path, media) for path, media in reversed(wanted) if media.url not in known}
        if missing and not self._is_on:
            raise _refusal(wanted[0], "this model takes data only and reading URLs is switched off here (upstream.fetch_urls); send the data")
        if len(missing) > MAX_URLS:
            raise _refusal(wanted[0], f"a call may give at most {MAX_URLS} URLs to a model that takes data only, not {len(missing)}; send data")
        if missing:
            # In a task of its own, as its time limit needs one and calls are not tasks (drive.py).
            await self._loop.create_task(self._fetch_all(list(missing.values())[::-1], known))
        for _, media in wanted:
            assert media.url is not None
            media.media_type, media.data = known[media.url]
            media.filename = media.filename or unquote(urlsplit(media.url).path.rpartition("/")[2])[:200] or None
            media.url = None

    async def _fetch_all(self, wanted: Sequence[Wanted], known: Known) -> None:
        """One after the other: so their bytes are counted together and no host is asked for many things at once."""
        room = self._max_bytes - sum(len(fetched.data) * 3 // 4 for fetched in known.values())
        last = wanted[0]
        try:
            async with asyncio.timeout(self._timeout_s):
                with closing(GuardedPool(self._guard, connect_timeout_s=self._timeout_s, tls=self._tls, loop=self._loop)) as pool:
                    for last in wanted:
                        media_type, body = await self._fetch(pool, last, room)
                        room -= len(body)
                        known[last.media.url or ""] = Fetched(_media_type(last, media_type, body), b64encode(body).decode())
        except TimeoutError:
            raise _refusal(last, f"could not be read within {self._timeout_s:g} s; send the data") from None

    async def _fetch(self, pool: GuardedPool, wanted: Wanted, room: int) -> tuple[str, bytes]:
        """(media type as it was told, content)."""
        url = wanted.media.url or ""
        for _ in range(MAX_REDIRECTS + 1):
            origin, path = _split(url, wanted)
            try:
                answer = await self._get(pool, origin, path, room)
            except ProviderError as error:
                problem = f"its reply is broken or larger than {room} bytes" if error.kind == "bad_reply" else _PROBLEMS.get(error.kind, "it broke off")
                raise _refusal(wanted, f"could not be read from {origin.authority}: {problem}; send the data") from error
            except ClientError as error:
                raise _refusal(wanted, error.message, error.code) from error
            if isinstance(answer, tuple):
                return answer
            url = urljoin(url, answer)
        raise _refusal(wanted, f"leads through more than {MAX_REDIRECTS} redirects")

    async def _get(self, pool: GuardedPool, origin: Origin, path: str, room: int) -> tuple[str, bytes] | str:
        """(media type, content), or where it has moved to."""
        connection = await pool.connect(origin)
        try:
            connection.send(request_head(b"GET", path.encode(), origin.authority.encode(), _FIELDS, None))
            head = await connection.head(self._timeout_s)
            if head.status in _REDIRECTS and b"location" in head.headers:
                return head.headers[b"location"].decode("latin-1")
            if head.status != 200:
                raise ClientError(f"could not be read: {origin.authority} answered {head.status}", code="url_unreadable")
            body = await connection.body(room, self._timeout_s)
            body = decode_body(body, head.headers.get(b"content-encoding", b""), room)
            return head.headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower(), body
        finally:
            connection.abort()


def _split(url: str, wanted: Wanted) -> tuple[Origin, str]:
    """(origin, path and query) of a URL that may be followed."""
    try:
        read = read_caller_url(url, MAX_URL_CHARS)
    except ValueError as error:
        raise _refusal(wanted, str(error), "url_refused") from None
    return Origin(read.scheme, read.host, read.port), read.target


def _media_type(wanted: Wanted, told: str, body: bytes) -> str:
    kind = wanted.media.kind
    if told in _UNTOLD:
        told = next((media_type for mark, media_type in _MARKS if body.startswith(mark)), told)
        if body[:4] == b"RIFF" and body[8:12] in (b"WEBP", b"WAVE"):
            told = "image/webp" if body[8:12] == b"WEBP" else "audio/wav"
    if not told.startswith(_TYPES[kind]):
        raise _refusal(wanted, f"leads to {told[:80] or 'content of no told type'} where {kind} was due", "url_unreadable")
    return told


def _refusal(wanted: Wanted, problem: str, code: str = "url_unreadable") -> ClientError:
    return ClientError(f"{wanted.path}: the URL {problem}", param=wanted.path, code=code)
