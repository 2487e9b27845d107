"""Requests to URLs that callers give: judged at intake and at each connect, bounded, and without anything of ours in them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from aigate.errors import ClientError
from aigate.keeper.guarded import MAX_REDIRECTS, Bounds, GuardedClient, Unreachable
from tests.keeper.tls_files import server_tls, write_certificate

OK = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello"
HIDDEN = ["127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "168.63.129.16"]
HIDDEN_6 = ["::1", "::", "fe80::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:3fff:fdd2"]
ODD = ["https://2130706433/", "https://0x7f000001/", "https://0177.0.0.1/", "https://127.1/", "https://localhost./", "https://a.com@127.0.0.1/", "https://a.com:22/", "http://a.com/", "gopher://a.com/", "nothing"]


def moved(location: str) -> bytes:
    return f"HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n".encode()


class Server:
    """On loopback; `answer`: from the request's path to the whole reply, b"" = none ever comes."""

    def __init__(self, answer: Callable[[str], bytes] = lambda path: OK, tls: ssl.SSLContext | None = None):
        self.answer, self.tls = answer, tls
        self.heads: list[str] = []
        self.bodies: list[bytes] = []

    async def __aenter__(self) -> Server:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if "content-length: " in head.lower():
                self.bodies.append(await reader.readexactly(int(head.lower().split("content-length: ")[1].split("\r\n")[0])))
            if answer := self.answer(head.split(" ")[1]):
                writer.write(answer.replace(b":0/", b":%d/" % self.port))
                await writer.drain()
            await reader.read()
        except (OSError, EOFError):
            pass  # it did not like us
        finally:
            writer.close()


def resolver(*answers: list[str]) -> Callable[[str, int], Awaitable[list[str]]]:
    """The answers, one after the other; the last one for ever."""
    left = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return left.pop(0) if len(left) > 1 else left[0]

    return resolve


def client(*answers: list[str], **options: object) -> GuardedClient:
    return GuardedClient(**{"allow_loopback": True, **options}, **({"resolve": resolver(*answers)} if answers else {}))  # type: ignore[arg-type]


def refusal(url: str, guarded: GuardedClient) -> ClientError:
    with pytest.raises(ClientError) as caught:
        asyncio.run(guarded.check_url(url, "webhook_url"))
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "url_refused", "webhook_url")
    assert caught.value.message.startswith("webhook_url: ")
    return caught.value


# --- at intake ---


@pytest.mark.parametrize("url", [*(f"https://{host}/" for host in HIDDEN), *(f"https://[{host}]/" for host in HIDDEN_6), *ODD, "https://localhost/", "http://127.0.0.1:8000/"])
def test_what_does_not_lead_to_the_internet_over_tls_is_refused(url):
    refusal(url, GuardedClient())


@pytest.mark.parametrize("address", [*HIDDEN, *HIDDEN_6])
def test_a_name_is_judged_by_what_it_resolves_to(address):
    refusal("https://rebound.example/", client([address], allow_loopback=False))
    refusal("https://mixed.example/", client(["8.8.8.8", address], allow_loopback=False))


@pytest.mark.parametrize("url", [*(f"https://{host}/" for host in HIDDEN[2:]), *(f"https://[{host}]/" for host in HIDDEN_6[1:]), *ODD])
def test_allowing_loopback_allows_nothing_else_that_is_hidden(url):
    refusal(url, client(["8.8.8.8"]) if "a.com" in url else client())


def test_urls_that_may_be_followed_pass():
    async def check() -> None:
        await client(["8.8.8.8"], allow_loopback=False).check_url("https://hooks.example/a?b=c", "url")
        for url in ("http://127.0.0.1:8000/", "http://localhost:8000/", "https://[::1]:8443/"):
            await GuardedClient(allow_loopback=True).check_url(url, "url")

    asyncio.run(check())


def test_a_name_that_does_not_resolve_now_passes_and_fails_at_connect():
    async def lost(host: str, port: int) -> list[str]:
        raise OSError("no such name")

    async def check() -> None:
        guarded = GuardedClient(resolve=lost)
        await guarded.check_url("https://later.example/", "url")
        with pytest.raises(Unreachable, match="later.example cannot be resolved"):
            await guarded.post("https://later.example/", b"", {})

    asyncio.run(check())


# --- sending ---


def test_a_post_carries_what_was_given_and_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")

    async def check() -> None:
        async with Server() as server:
            guarded = client(["127.0.0.1"])
            assert await guarded.post(f"http://hooks.example:{server.port}/a?b=c", b'{"a":1}', {"x-mark": "1"}) == 200
            [head], [body] = server.heads, server.bodies
            assert head.startswith("POST /a?b=c HTTP/1.1\r\n") and f"hooks.example:{server.port}" in head and "x-mark: 1" in head
            assert body == b'{"a":1}'
            assert {line.split(":")[0].lower() for line in head.splitlines()[1:] if line} == {
                "host", "user-agent", "accept-encoding", "connection", "content-length", "x-mark",
            }  # fmt: skip

    asyncio.run(check())


def test_a_post_follows_no_redirect():
    async def check() -> None:
        async with Server(lambda path: moved("http://127.0.0.1:0/other")) as server:
            assert await client().post(f"http://127.0.0.1:{server.port}/", b"{}", {}) == 302
            assert len(server.heads) == 1

    asyncio.run(check())


def test_the_answer_at_connect_counts_not_the_one_at_intake():
    async def check() -> None:
        async with Server() as server:
            guarded = client(["127.0.0.1"], ["10.0.0.1"])
            url = f"http://turning.example:{server.port}/"
            await guarded.check_url(url, "url")
            with pytest.raises(Unreachable, match="turning.example is not a host on the public internet"):
                await guarded.post(url, b"{}", {})
            assert server.heads == []

    asyncio.run(check())


def test_plain_http_never_leaves_this_machine():
    async def check() -> None:
        with pytest.raises(Unreachable, match="must begin with https://"):
            await client(["8.8.8.8"]).post("http://hooks.example/", b"{}", {})

    asyncio.run(check())


def test_the_certificate_must_name_the_host(tmp_path: Path):
    write_certificate(tmp_path / "hooks.pem", "hooks.example")
    tls = ssl.create_default_context(cafile=str(tmp_path / "hooks.pem"))

    async def check() -> None:
        async with Server(tls=server_tls(tmp_path / "hooks.pem")) as server:
            guarded = client(["127.0.0.1"], tls=tls)
            assert await guarded.post(f"https://hooks.example:{server.port}/", b"{}", {}) == 200
            for other, known in ((f"https://other.example:{server.port}/", tls), (f"https://hooks.example:{server.port}/", None)):
                with pytest.raises(Unreachable, match="no TLS connection: the certificate is not accepted"):
                    await client(["127.0.0.1"], tls=known).post(other, b"{}", {})
            assert len(server.heads) == 1

    asyncio.run(check())


def test_another_address_of_the_name_is_tried_where_one_cannot_be_connected_to():
    async def check() -> None:
        async with Server() as server:
            assert await client(["127.0.0.9", "127.0.0.1"]).post(f"http://two.example:{server.port}/", b"{}", {}) == 200

    asyncio.run(check())


@pytest.mark.parametrize(("answer", "words"), [(b"", "no answer within 0.2 s"), (b"SSH-2.0\r\n\r\n", "the answer is not HTTP"), (b"HTTP/1.1 200 OK\r\nx: " + b"a" * 200_000, "not HTTP|broke off")])
def test_a_receiver_that_does_not_answer_properly_is_told_apart(answer, words):
    async def check() -> None:
        async with Server(lambda path: answer) as server:
            with pytest.raises(Unreachable, match=words):
                await client().post(f"http://127.0.0.1:{server.port}/", b"{}", {}, timeout_s=10 if answer else 0.2)
        with pytest.raises(Unreachable, match="no connection could be made"):
            await client().post(f"http://127.0.0.1:{server.port}/", b"{}", {})

    asyncio.run(check())


# --- reading ---


async def read(guarded: GuardedClient, url: str, max_bytes: int = 100, timeout_s: float = 5) -> tuple[int, str, bytes]:
    async with guarded.read(url, Bounds(max_bytes, timeout_s)) as reply:
        return reply.status, reply.media_type, b"".join([chunk async for chunk in reply])


def test_content_is_read_through_redirects_within_its_bounds():
    async def check() -> None:
        async with Server(lambda path: moved("/end") if path == "/start" else OK) as server:
            url = f"http://127.0.0.1:{server.port}/start"
            assert await read(client(), url) == (200, "text/plain", b"hello")
            with pytest.raises(Unreachable, match="more than 3 bytes"):
                await read(client(), url, max_bytes=3)
        async with Server(lambda path: moved("/again")) as server:
            with pytest.raises(Unreachable, match=f"more than {MAX_REDIRECTS} redirects"):
                await read(client(), f"http://127.0.0.1:{server.port}/")
        async with Server(lambda path: OK[:-2]) as server:
            with pytest.raises(Unreachable, match="longer than 0.2 s"):
                await read(client(), f"http://127.0.0.1:{server.port}/", timeout_s=0.2)

    asyncio.run(check())


@pytest.mark.parametrize("location", ["http://10.0.0.1/", "https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "file:///etc/passwd", "http://8.8.8.8/", "https://2130706433/"])
def test_a_redirect_is_judged_like_the_url_itself(location):
    async def check() -> None:
        async with Server(lambda path: moved(location)) as server:
            with pytest.raises(Unreachable, match="not a host on the public internet|the URL must|the URL has"):
                await read(client(), f"http://127.0.0.1:{server.port}/")
            assert len(server.heads) == 1

    asyncio.run(check())
