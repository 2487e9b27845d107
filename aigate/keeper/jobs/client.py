"""Requests of jobs to their providers: the credential and the row's headers are added here, and go to the provider's own origin alone.

A submission has a connection of its own, so that one that was kept too long can never leave its fate in doubt. Anything a provider points
to elsewhere (results, mostly) is read through the guarded client.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from aigate import __version__
from aigate.core.target import Provider, Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest
from aigate.keeper.guarded import Bounds, GuardedClient, Unreachable

if TYPE_CHECKING:
    import httpx2

MAX_REPLY_BYTES = 16 << 20  # of a reply that is read, not stored
MAX_REDIRECTS = 5
CONNECT_S = 10.0
POLL_S = 30.0  # of silence
FETCH_S = 900.0  # for a whole file elsewhere
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HOST = "http://provider"  # of a provider on a Unix socket


class NotSent(ProviderError):
    """No connection: not a byte of the request has left."""


class Unusable(ProviderError):
    """What it names as the result can never be taken over."""


class Media(NamedTuple):
    reply: HttpReply  # its body is in `pieces`
    pieces: AsyncIterator[bytes]


class ProviderClient:
    """One per keeper. Its library is loaded with the first request."""

    def __init__(self, guarded: GuardedClient):
        self._guarded = guarded
        self._clients: dict[str, tuple[str, httpx2.AsyncClient]] = {}

    async def close(self) -> None:
        clients, self._clients = self._clients, {}
        for _, client in clients.values():
            await client.aclose()

    async def ask(self, target: Target, request: HttpRequest, *, timeout_s: float = POLL_S) -> HttpReply:
        """A reply that is read whole, unless it is media. Raises ProviderError."""
        async with self._send(self._client(target.provider), target, request, timeout_s) as response:
            return await _read(request, response)

    @asynccontextmanager
    async def submit(self, target: Target, request: HttpRequest) -> AsyncIterator[Media]:
        """As `ask`, on a new connection; `pieces` are the media that a provider may answer with at once. Raises NotSent where nothing
        has left, any other ProviderError where nobody knows."""
        async with _new_client(target.provider, keeps=False) as client:
            async with self._send(client, target, request, target.provider.timeout_s) as response:
                yield Media(await _read(request, response), _pieces(response))

    @asynccontextmanager
    async def fetch(self, target: Target, request: HttpRequest, max_bytes: int) -> AsyncIterator[Media]:
        """A file, streamed; redirects are followed, each judged anew."""
        for _ in range(MAX_REDIRECTS + 1):
            if not _is_own(target.provider, request.url):
                async with self._fetch_elsewhere(request.url, max_bytes) as media:
                    yield media
                return
            async with self._send(self._client(target.provider), target, request, POLL_S) as response:
                location = response.headers.get("location", "")
                if response.status_code not in _REDIRECTS or not location:
                    yield Media(_head(response), _pieces(response, max_bytes))
                    return
                request = HttpRequest(url=urljoin(str(response.url), location))
        raise ProviderError("the result leads through too many redirects", kind="error")

    @asynccontextmanager
    async def _fetch_elsewhere(self, url: str, max_bytes: int) -> AsyncIterator[Media]:
        try:
            async with self._guarded.read(url, Bounds(max_bytes, FETCH_S)) as reply:
                yield Media(HttpReply(status=reply.status, headers={"content-type": reply.media_type}), reply.chunks)
        except Unreachable as error:
            raise ProviderError(f"the result cannot be read: {error}", kind="error") from None

    @asynccontextmanager
    async def _send(
        self, client: httpx2.AsyncClient, target: Target, request: HttpRequest, timeout_s: float
    ) -> AsyncIterator[httpx2.Response]:
        import httpx2

        provider = target.provider
        if not _is_own(provider, request.url):
            raise ProviderError("the provider names a place that is not its own", kind="bad_reply")
        url = _absolute(provider, request.url)
        headers = {**credential_header(provider), **provider.headers, **request.headers, "accept-encoding": "identity"}
        timeout = httpx2.Timeout(timeout_s, connect=CONNECT_S)
        try:
            async with client.stream(request.method, url, headers=headers, content=request.body or None, timeout=timeout) as response:
                yield response
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            raise NotSent(f"{provider.name} cannot be reached", kind="refused") from error
        except httpx2.TimeoutException as error:
            raise ProviderError(f"{provider.name} did not answer in time", kind="timeout") from error
        except httpx2.TransportError as error:
            raise ProviderError(f"{provider.name} broke the connection off", kind="reset") from error

    def _client(self, provider: Provider) -> httpx2.AsyncClient:
        known = self._clients.get(provider.name)
        base_url = _base_url(provider)
        if known is None or known[0] != base_url:
            known = self._clients[provider.name] = base_url, _new_client(provider, keeps=True)
        return known[1]


def _new_client(provider: Provider, *, keeps: bool) -> httpx2.AsyncClient:
    import httpx2

    logging.getLogger("httpx2").setLevel(logging.WARNING)  # it tells of every request
    limits = httpx2.Limits(max_connections=200, max_keepalive_connections=50 if keeps else 0, keepalive_expiry=30)
    base_url = _base_url(provider)
    path = unquote(base_url[7:].partition(":/")[0]) if base_url.startswith("unix://") else None
    verify = _authorities() if base_url.startswith("https://") else False
    transport = httpx2.AsyncHTTPTransport(uds=path, limits=limits, verify=verify, trust_env=False)
    return httpx2.AsyncClient(transport=transport, headers={"user-agent": f"aigate/{__version__}"}, trust_env=False, follow_redirects=False)


@cache
def _authorities() -> ssl.SSLContext:
    """Reading them takes tens of milliseconds, so it is done once."""
    return ssl.create_default_context()


def credential_header(provider: Provider) -> dict[str, str]:
    style, _, name = provider.auth.partition(":")
    if style == "none" or not provider.credential:
        return {}
    if style == "header":
        return {name: provider.credential}
    return {"authorization": f"{name or 'Bearer'} {provider.credential}"}


async def _read(request: HttpRequest, response: httpx2.Response) -> HttpReply:
    head = _head(response)
    is_json = "json" in head.headers.get("content-type", "")
    if request.is_media and 200 <= head.status < 300 and head.status != 202 and not is_json:
        return head
    body = b"".join([piece async for piece in _pieces(response, MAX_REPLY_BYTES)])
    return HttpReply(status=head.status, headers=head.headers, body=body)


def _head(response: httpx2.Response) -> HttpReply:
    return HttpReply(status=response.status_code, headers={name.lower(): value for name, value in response.headers.items()})


async def _pieces(response: httpx2.Response, max_bytes: int | None = None) -> AsyncIterator[bytes]:
    room = max_bytes
    async for piece in response.aiter_raw(256 << 10):
        if room is not None and (room := room - len(piece)) < 0:
            raise Unusable(f"it has more than {max_bytes} bytes", kind="bad_reply")
        yield piece


def _base_url(provider: Provider) -> str:
    return provider.jobs_base_url or provider.base_url


def _absolute(provider: Provider, url: str) -> str:
    if not url.startswith("/"):
        return url
    base = _base_url(provider)
    return (_HOST + "/" + base[7:].partition(":/")[2] if base.startswith("unix://") else base).rstrip("/") + url


def _is_own(provider: Provider, url: str) -> bool:
    """Whether `url` is on the provider's own origin: there alone its credential goes."""
    if url.startswith("/"):
        return True
    asked, own = urlsplit(url), urlsplit(_absolute(provider, "/"))
    return (asked.scheme, asked.netloc) == (own.scheme, own.netloc) and asked.username is None
