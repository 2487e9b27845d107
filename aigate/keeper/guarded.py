"""The keeper's one HTTP client for URLs that callers give: webhooks sent, content read. For an operator's or a provider's URL it is not needed.

Knows no proxy, no cookie, no credential and no keep-alive: each request is a connection of its own, to an address that aigate/guard.py has
judged, with the certificate checked against the name. Bounded in time and bytes. HTTPS only; where the operator allows loopback (development,
tests), http://127.0.0.1 and the like too, and nothing else that is private.

    await guarded.check_url(url, "webhook_url")             # at intake: ClientError (400) that names the field
    status = await guarded.post(url, body, headers)         # never follows a redirect; Unreachable says why it failed
    async with guarded.read(url, Bounds(MIB, 30)) as reply: # follows a few, each judged anew
        async for chunk in reply: …
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urljoin

from aigate import __version__
from aigate.core.caller_url import CallerUrl, read_caller_url
from aigate.core.public_address import is_public
from aigate.errors import ClientError
from aigate.guard import Guard, Resolve, resolve

if TYPE_CHECKING:
    import httpx2

MAX_URL_CHARS = 2048
MAX_REDIRECTS = 3
LOOK_UP_S = 2.0  # at intake; a name that takes longer is judged when it is connected to
CONNECT_S = 10.0
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_USER_AGENT = f"aigate/{__version__}"


class Bounds(NamedTuple):
    """Of one read, redirects and all."""

    max_bytes: int
    timeout_s: float


class Unreachable(Exception):
    """No reply, or one that cannot be used. The words may be shown to the caller; they name no address."""


class Reply(NamedTuple):
    """What was found behind a URL. Iterated: its bytes; Unreachable where they are too many or break off."""

    status: int
    media_type: str
    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks


class GuardedClient:
    """`tls`: None = the public internet's authorities. `resolve`: a resolver."""

    def __init__(self, *, allow_loopback: bool = False, tls: ssl.SSLContext | None = None, resolve: Resolve = resolve):
        self._allow_loopback = allow_loopback
        self._tls = tls
        self._guard = Guard(resolve=resolve, permits=self._permits)

    async def check_url(self, url: str, field: str) -> None:
        """Raises ClientError where `url` may not be followed. A name that does not resolve now passes: it is judged again at each connect."""
        try:
            read = self._read(url)
            async with asyncio.timeout(LOOK_UP_S):
                self._check_scheme(read, await self._guard.addresses(read.host, read.port))
        except ValueError as error:
            raise ClientError(f"{field}: the URL {error}.", param=field, code="url_refused") from None
        except ClientError as error:
            raise ClientError(f"{field}: {error.message}.", param=field, code="url_refused") from None
        except (OSError, TimeoutError):
            return  # nothing is known of the name now

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], timeout_s: float = 10.0) -> int:
        """The status of the reply, whose body is not read. Raises Unreachable."""
        try:
            async with asyncio.timeout(timeout_s), self._send("POST", url, headers, body) as response:
                return response.status_code
        except TimeoutError:
            raise Unreachable(f"no answer within {timeout_s:g} s") from None

    @asynccontextmanager
    async def read(self, url: str, bounds: Bounds) -> AsyncIterator[Reply]:
        """Raises Unreachable, also while the reply is iterated. Any status but a redirect's is the caller's to judge."""
        try:
            async with asyncio.timeout(bounds.timeout_s):
                for _ in range(MAX_REDIRECTS + 1):
                    async with self._send("GET", url, {"accept": "*/*"}, b"") as response:
                        location = response.headers.get("location", "")
                        if response.status_code not in _REDIRECTS or not location:
                            media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
                            yield Reply(response.status_code, media_type, _bounded(response, bounds.max_bytes))
                            return
                    url = urljoin(url, location)
        except TimeoutError:
            raise Unreachable(f"it took longer than {bounds.timeout_s:g} s") from None
        raise Unreachable(f"it leads through more than {MAX_REDIRECTS} redirects")

    # --- one request ---

    @asynccontextmanager
    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[httpx2.Response]:
        import httpx2  # here: few keepers need it

        try:
            read = self._read(url)
            addresses = await self._guard.addresses(read.host, read.port)
            self._check_scheme(read, addresses)
        except ValueError as error:
            raise Unreachable(f"the URL {error}") from None
        except ClientError as error:
            raise Unreachable(error.message) from None
        except OSError:
            raise Unreachable(f"the name {read.host} cannot be resolved") from None
        self._tls = self._tls or ssl.create_default_context()
        async with httpx2.AsyncHTTPTransport(verify=self._tls, trust_env=False) as transport:
            try:
                response = await _connect(transport, read, addresses, (method, headers, body))
                try:
                    yield response
                finally:
                    await response.aclose()
            except (httpx2.TransportError, OSError) as error:
                raise Unreachable(_words(error)) from None

    # --- what is allowed ---

    def _read(self, url: str) -> CallerUrl:
        read = read_caller_url(url, MAX_URL_CHARS)
        if read.scheme != "https" and not self._allow_loopback:
            raise ValueError("must begin with https://")
        return read

    def _permits(self, address: str) -> bool:
        return is_public(address) or (self._allow_loopback and _is_loopback(address))

    def _check_scheme(self, read: CallerUrl, addresses: Iterable[str]) -> None:
        if read.scheme != "https" and not all(map(_is_loopback, addresses)):
            raise ClientError("the URL must begin with https://, as it leads to the internet", code="url_refused")


async def _connect(
    transport: httpx2.AsyncHTTPTransport, read: CallerUrl, addresses: Sequence[str], message: tuple[str, Mapping[str, str], bytes]
) -> httpx2.Response:
    """From the first address that can be connected to. The host stays what the request asks for and what the certificate must name."""
    import httpx2

    method, headers, body = message
    fields = {"host": read.authority, "user-agent": _USER_AGENT, "accept-encoding": "identity", "connection": "close", **headers}
    extensions = {"sni_hostname": read.host, "timeout": {"connect": CONNECT_S}}
    for place, address in enumerate(addresses, 1):
        url = httpx2.URL(scheme=read.scheme, host=address, port=read.port, raw_path=read.target.encode())
        try:
            return await transport.handle_async_request(httpx2.Request(method, url, headers=fields, content=body, extensions=extensions))
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            if place == len(addresses):
                raise
    raise httpx2.ConnectError("no address")


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


async def _bounded(response: httpx2.Response, max_bytes: int) -> AsyncIterator[bytes]:
    room = max_bytes
    async for chunk in response.aiter_raw():
        room -= len(chunk)
        if room < 0:
            raise Unreachable(f"it has more than {max_bytes} bytes")
        yield chunk


def _words(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return f"no TLS connection: {_tls_words(cause)}"
        cause = cause.__cause__ or cause.__context__
    return {
        "ConnectError": "no connection could be made",
        "ConnectTimeout": "no connection could be made in time",
        "RemoteProtocolError": "the answer is not HTTP",
    }.get(type(error).__name__, "the connection broke off")


def _tls_words(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not accepted ({error.verify_message})"
    return (error.reason or "handshake failed").replace("_", " ").lower()
