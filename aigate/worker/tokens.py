"""Access tokens of providers that want one got for a credential: kept fresh in the background, so that calls find one and do not wait.

A call waits only where there is none at all. While a token cannot be renewed the last good one serves until it expires; then calls are told
why (502). One request for a token at a time, however many wait. Tokens are never logged: whoever takes them (`take`) hides them too.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

import msgspec

from aigate import __version__
from aigate.core.target import GOOGLE_TOKEN, Provider
from aigate.errors import ProviderError
from aigate.providers.google_token import Credential, ask_for_token, read_refusal, read_token
from aigate.worker.client import Pool, decode_body, parse_base_url
from aigate.worker.heads import request_head

log = logging.getLogger("aigate.worker")

Take = Callable[[str, str], None]  # provider's name, token

ASK_S = 10.0  # for one answer
EARLY_S = 300.0  # before its end a token is renewed; a short-lived one at three quarters of its life
MARGIN_S = 10.0  # before its end it is not used any more: it has to arrive
FIRST_RETRY_S, LAST_RETRY_S = 1.0, 30.0
FORCED_S = 30.0  # at most this often is a token renewed because a provider refused it
MAX_ANSWER_BYTES = 64 << 10


class Tokens:
    """One per worker. `run` keeps all of them fresh until cancelled."""

    def __init__(self, providers: Iterable[Provider], pool: Pool, take: Take, loop: asyncio.AbstractEventLoop):
        self._sources = {row.name: _Source(row, pool, take, loop) for row in providers if row.auth == GOOGLE_TOKEN and row.credential}

    async def run(self) -> None:
        await asyncio.gather(*(source.run() for source in self._sources.values()))

    async def ready(self, provider: Provider) -> None:
        """Returns at once where nothing is missing. Raises ProviderError where there is no token to be had."""
        source = self._source(provider)
        if source is not None and not source.is_good():
            await source.renew()
            if not source.is_good():
                raise ProviderError(f"no access token for {provider.name}: {source.problem}", kind="auth", provider=provider.name)

    async def renewed(self, provider: Provider, sent_at: float) -> bool:
        """After the provider refused the token of a request sent then: whether there is a newer one now."""
        source = self._source(provider)
        return source is not None and await source.renewed(sent_at)

    def _source(self, provider: Provider) -> _Source | None:
        return None if provider.credential_id else self._sources.get(provider.name)  # a caller's own is a token already


class _Source:
    """The token of one provider. Times are the loop's."""

    def __init__(self, provider: Provider, pool: Pool, take: Take, loop: asyncio.AbstractEventLoop):
        self.problem = ""
        self._name = provider.name
        self._credential = msgspec.json.decode(provider.credential, type=Credential)
        self._host = urlsplit(self._credential.token_uri).netloc
        self._pool = pool
        self._take = take
        self._loop = loop
        self._got_at = self._expires_at = self._renew_at = self._forced_at = -1e9
        self._retry_s = FIRST_RETRY_S
        self._asking: asyncio.Task[None] | None = None

    def is_good(self) -> bool:
        return self._loop.time() < self._expires_at

    async def run(self) -> None:
        while True:
            await self.renew()
            while (wait_s := self._renew_at - self._loop.time()) > 0:
                await asyncio.sleep(wait_s)  # again, where a call has renewed it meanwhile

    async def renew(self) -> None:
        """One request for all who wait; none where the last one failed a moment ago."""
        if self._asking is None:
            if self.problem and self._loop.time() < self._renew_at:
                return
            self._asking = self._loop.create_task(self._ask())
        await asyncio.shield(self._asking)

    async def renewed(self, sent_at: float) -> bool:
        now = self._loop.time()
        if self._got_at <= sent_at and now - self._forced_at >= FORCED_S:
            self._forced_at = now
            self._renew_at = now
            await self.renew()
        return self._got_at > sent_at

    async def _ask(self) -> None:
        asked_at = self._loop.time()
        try:
            async with asyncio.timeout(ASK_S):
                token, life_s = await self._get()
        except TimeoutError:
            self._failed("it did not answer in time")
        except ProviderError as error:
            self._failed(error.message)
        except ValueError as error:
            self._failed(str(error))
        except Exception as error:  # noqa: BLE001 - a bug of ours: it goes on being tried, as the token in force will end
            self._failed(f"internal error ({type(error).__name__})")
        else:
            self._got_at = self._loop.time()
            self._expires_at = asked_at + life_s - min(MARGIN_S, life_s / 20)
            self._renew_at = asked_at + life_s - min(EARLY_S, life_s / 4)
            self._retry_s, self.problem = FIRST_RETRY_S, ""
            self._take(self._name, token)
        finally:
            self._asking = None

    def _failed(self, problem: str) -> None:
        self.problem = f"{self._host} gives none: {problem}"
        self._renew_at = self._loop.time() + self._retry_s
        self._retry_s = min(self._retry_s * 2, LAST_RETRY_S)
        log.warning("%s: the access token cannot be renewed: %s", self._name, self.problem)

    async def _get(self) -> tuple[str, float]:
        ask = ask_for_token(self._credential, time.time())
        origin, path = parse_base_url(ask.url)
        fields = [*ask.fields, (b"accept", b"application/json"), (b"accept-encoding", b"identity"), (b"user-agent", f"aigate/{__version__}".encode())]
        connection = await self._pool.connect(origin)
        try:
            length = len(ask.body) if ask.method == b"POST" else None
            connection.send(request_head(ask.method, path.encode(), origin.authority.encode(), fields, length) + ask.body)
            head = await connection.head(ASK_S)
            body = await connection.body(MAX_ANSWER_BYTES, ASK_S)
            body = decode_body(body, head.headers.get(b"content-encoding", b""), MAX_ANSWER_BYTES)
        finally:
            connection.abort()  # once an hour: not worth keeping
        if head.status != 200:
            raise ValueError(read_refusal(head.status, body))
        return read_token(body)
