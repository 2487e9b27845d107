"""Requests of jobs to providers: whom the credential goes to, what is followed, what an end of a connection means."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpRequest
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.jobs.client import NotSent, ProviderClient, Unusable, credential_header


class Host:
    """A server that notes the authorization of what it is asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.elsewhere = ""
        routes = [Route("/{path:path}", self._answer)]
        self._server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical"))
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"

    async def _answer(self, request: Request) -> Response:
        self.seen.append((request.url.path, request.headers.get("authorization", "")))
        if request.url.path.endswith("/moved"):
            return RedirectResponse(self.elsewhere + "/v1/file")
        if request.url.path.endswith("/near"):
            return RedirectResponse("/v1/file")
        if request.url.path.endswith("/file"):
            return Response(b"x" * 1000, media_type="video/mp4")
        return JSONResponse({"ok": True})

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(5)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    own, other = Host(), Host()
    own.elsewhere = other.url
    yield own, other
    own.close()
    other.close()


def target(base_url: str, **fields: object) -> Target:
    provider = Provider(name="media", base_url=base_url, credential="secret", jobs="openai-videos", **fields)  # type: ignore[arg-type]
    return Target("media/clip", provider, "clip", Model(slug="media/clip"), Quirks(), "openai-videos", "/v1", "video")


def run(test, *, allow_loopback: bool = True) -> None:
    async def use() -> None:
        client = ProviderClient(GuardedClient(allow_loopback=allow_loopback))
        try:
            await test(client)
        finally:
            await client.close()

    asyncio.run(asyncio.wait_for(use(), 20))


async def fetched(client: ProviderClient, to: Target, url: str, max_bytes: int = 10_000) -> bytes:
    async with client.fetch(to, HttpRequest(url=url, is_media=True), max_bytes) as media:
        return b"".join([piece async for piece in media.pieces])


def test_the_credential_goes_to_the_providers_own_origin_alone(hosts: tuple[Host, Host]) -> None:
    own, other = hosts

    async def test(client: ProviderClient) -> None:
        to = target(own.url + "/v1")
        assert (await client.ask(to, HttpRequest(url="/videos/1"))).body == b'{"ok":true}'
        for url in ("/file", "/near", own.url + "/v1/file", "/moved", other.url + "/v1/file"):
            assert await fetched(client, to, url) == b"x" * 1000
        with pytest.raises(ProviderError, match="not its own"):
            await client.ask(to, HttpRequest(url=other.url + "/v1/videos/1"))

    run(test)
    assert {authorization for _, authorization in own.seen} == {"Bearer secret"}
    assert {authorization for _, authorization in other.seen} == {""} and len(other.seen) == 2


def test_a_result_on_an_internal_address_is_not_fetched(hosts: tuple[Host, Host]) -> None:
    own, other = hosts

    async def test(client: ProviderClient) -> None:
        for url in (other.url + "/v1/file", "/moved", "http://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/x", "file:///etc/passwd"):
            with pytest.raises(ProviderError, match="cannot be read"):
                await fetched(client, target(own.url + "/v1"), url)

    run(test, allow_loopback=False)
    assert other.seen == []


def test_a_result_that_is_too_large_ends_the_reading(hosts: tuple[Host, Host]) -> None:
    async def test(client: ProviderClient) -> None:
        with pytest.raises(Unusable, match="more than 999 bytes"):
            await fetched(client, target(hosts[0].url + "/v1"), "/file", 999)

    run(test)


def test_what_never_left_is_told_from_what_nobody_knows_of() -> None:
    async def cut(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async def test(client: ProviderClient) -> None:
        server = await asyncio.start_server(cut, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        asked = HttpRequest(method="POST", url="/videos", body=b"{}")
        with pytest.raises(ProviderError, match="broke the connection off") as unknown:
            async with client.submit(target(f"http://127.0.0.1:{port}/v1"), asked):
                pass
        assert not isinstance(unknown.value, NotSent)
        server.close()
        await server.wait_closed()
        with pytest.raises(NotSent):
            async with client.submit(target(f"http://127.0.0.1:{port}/v1"), asked):
                pass

    run(test)


@pytest.mark.parametrize(
    ("auth", "header"),
    [
        ("bearer", {"authorization": "Bearer secret"}),
        ("header:xi-api-key", {"xi-api-key": "secret"}),
        ("scheme:Key", {"authorization": "Key secret"}),
        ("none", {}),
    ],
)
def test_a_credential_travels_as_its_row_says(auth: str, header: dict[str, str]) -> None:
    assert credential_header(target("http://127.0.0.1:1/v1", auth=auth).provider) == header
