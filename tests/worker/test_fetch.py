"""Media by URL: read through the guard alone, bounded, and put in the URL's place; whatever goes wrong names the field."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import Callable
from errno import EADDRINUSE

import pytest

from aigate.core.neutral import Media
from aigate.dialects.fetchable import Wanted
from aigate.errors import ClientError
from aigate.guard import Guard
from aigate.worker.client import tls_context
from aigate.worker.fetch import MAX_REDIRECTS, MAX_URLS, Fetcher

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100
PUBLIC, PRIVATE = "127.0.0.2", "127.0.0.1"  # which of the machine's own addresses these tests take for public
Answer = Callable[[str], bytes]  # request path → the whole reply


def reply(body: bytes = PNG, media_type: str = "image/png", status: str = "200 OK", more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-type: {media_type}\r\ncontent-length: {len(body)}\r\n{more}\r\n".encode() + body


def moved(location: str) -> bytes:
    return reply(b"", status="302 Found", more=f"location: {location}\r\n")


class World:
    """One web server on a public and a private address, a resolver, and what the server was asked."""

    server_tls: ssl.SSLContext | None = None

    def __init__(self, answer: Answer, names: dict[str, list[str]] | None = None, **options: object):
        self.answer = answer
        self.client_tls = tls_context()
        self.names = {"pictures.test": [PUBLIC], "inside.test": [PRIVATE]} | (names or {})
        self.options = {"is_on": True, "max_bytes": 10_000, "timeout_s": 5.0} | options
        self.asked: list[str] = []
        self.heads: list[str] = []

    def fetch(self, *urls: str, kind: str = "image") -> list[Media]:
        return asyncio.run(self._fetch(urls, kind))

    async def _servers(self) -> tuple[list[asyncio.Server], int]:
        """At both addresses, at one port: another's test may have it at the second."""
        while True:
            public = await asyncio.start_server(self._serve, PUBLIC, 0, ssl=self.server_tls)
            port = public.sockets[0].getsockname()[1]
            try:
                return [public, await asyncio.start_server(self._serve, PRIVATE, port, ssl=self.server_tls)], port
            except OSError as error:
                public.close()
                if error.errno != EADDRINUSE:
                    raise

    async def _fetch(self, urls: tuple[str, ...], kind: str) -> list[Media]:
        servers, port = await self._servers()
        media = [Media(kind, url=url.replace(":0", f":{port}")) for url in urls]
        self.port = port

        async def resolve(host: str, _port: int) -> list[str]:
            return self.names.get(host, [host])

        guard = Guard(resolve=resolve, permits=lambda address: address == PUBLIC)
        fetcher = Fetcher(guard, tls=self.client_tls, loop=asyncio.get_running_loop(), **self.options)  # type: ignore[arg-type]
        try:
            self.known: dict = {}
            await fetcher.fill([Wanted(f"messages[0].content[{place}]", each) for place, each in enumerate(media)], self.known)
        finally:
            for server in servers:
                server.close()
        return media

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        self.asked.append(head.split(" ")[1])
        writer.write(self.answer(self.asked[-1]).replace(b":0/", b":%d/" % self.port))
        await writer.drain()
        await reader.read()
        writer.close()

    def refusal(self, *urls: str, kind: str = "image") -> ClientError:
        with pytest.raises(ClientError) as caught:
            self.fetch(*urls, kind=kind)
        assert caught.value.status == 400
        assert str(caught.value.param).startswith("messages[0].content[")
        assert str(caught.value.param) in caught.value.message
        return caught.value


def test_content_takes_the_place_of_its_url():
    world = World(lambda path: reply())
    [media] = world.fetch("http://pictures.test:0/a%20cat.png?size=1")
    assert (media.url, media.media_type, media.filename) == (None, "image/png", "a cat.png")
    assert base64.b64decode(media.data or "") == PNG
    assert world.asked == ["/a%20cat.png?size=1"]
    assert "authorization" not in world.heads[0].lower() and "cookie" not in world.heads[0].lower()


def test_one_url_is_read_once_however_often_it_stands():
    world = World(lambda path: reply())
    first, second = world.fetch("http://pictures.test:0/a.png", "http://pictures.test:0/a.png")
    assert first.data == second.data
    assert len(world.asked) == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://inside.test:0/", "http://127.0.0.1:0/", "http://[::1]:0/", "http://[::ffff:127.0.0.1]:0/", "http://169.254.169.254/latest",
        "http://100.64.0.1/", "http://0.0.0.0:0/", "http://10.0.0.1/", "http://2130706433:0/", "http://0x7f000001:0/", "http://0177.0.0.1:0/",
        "http://127.1:0/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://inside.test.:0/", "http://pictures.test@inside.test:0/",
        "http://pictures.test\\@127.0.0.1/", "http://pictures.test:22/", "http://[fe80::1%25lo]/",
    ],
)  # fmt: skip
def test_a_host_inside_is_refused_before_anything_is_sent(url):
    world = World(lambda path: reply())
    error = world.refusal(url)
    assert (error.code, world.asked) == ("url_refused", [])


def test_a_name_with_one_address_inside_is_refused_whole():
    world = World(lambda path: reply(), names={"mixed.test": [PUBLIC, PRIVATE]})
    assert world.refusal("http://mixed.test:0/").code == "url_refused"
    assert world.asked == []


def test_a_name_is_judged_at_each_connection():
    """A resolver that answers otherwise the second time gains nothing."""
    answers = [[PUBLIC], [PRIVATE]]
    world = World(lambda path: reply() if path != "/1" else moved("http://turning.test:0/2"))
    world.names = _Turning(world.names, "turning.test", answers)
    assert world.refusal("http://turning.test:0/1").code == "url_refused"
    assert world.asked == ["/1"]


class _Turning(dict):
    def __init__(self, names: dict, host: str, answers: list[list[str]]):
        super().__init__(names)
        self._host, self._answers = host, answers

    def get(self, host, default=None):  # type: ignore[no-untyped-def]
        return self._answers.pop(0) if host == self._host else super().get(host, default)


@pytest.mark.parametrize("location", ["http://inside.test:0/secret", "http://127.0.0.1:0/secret", "//127.0.0.1:0/secret", "file:///etc/passwd", "gopher://pictures.test/"])
def test_a_redirect_is_judged_like_the_url_itself(location):
    world = World(lambda path: moved(location))
    assert world.refusal("http://pictures.test:0/a").code == "url_refused"
    assert world.asked == ["/a"]


def test_redirects_are_followed_a_few_times():
    world = World(lambda path: reply() if path == "/3" else moved(f"/{int(path[1:]) + 1}"))
    assert world.fetch("http://pictures.test:0/0")[0].data
    assert world.asked == ["/0", "/1", "/2", "/3"]
    endless = World(lambda path: moved("/again"))
    assert "redirects" in endless.refusal("http://pictures.test:0/").message
    assert len(endless.asked) == MAX_REDIRECTS + 1


@pytest.mark.parametrize(
    "url",
    ["ftp://pictures.test/a", "file:///etc/passwd", "https://", "http://user:secret@pictures.test/", "http://pictures.test/a b", "http://pictures.test:99999/",
     "http://pictures.test/\r\nx: y", "http://bücher.test/", "http://pictures.test/" + "a" * 9000, "unix:///run/x.sock:/", "http://pictures.test:0x/"],
)  # fmt: skip
def test_what_is_no_plain_web_address_is_refused(url):
    error = World(lambda path: reply()).refusal(url)
    assert error.code == "url_refused"
    assert "secret" not in error.message


def test_the_bytes_of_all_urls_together_are_bounded():
    world = World(lambda path: reply(PNG.ljust(6000)), max_bytes=10_000)
    assert world.fetch("http://pictures.test:0/1")[0].data
    error = world.refusal("http://pictures.test:0/1", "http://pictures.test:0/2")
    assert error.param == "messages[0].content[1]"
    assert "larger than 4000 bytes" in error.message


def test_a_body_without_length_is_bounded_too():
    endless = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n\r\n" + PNG.ljust(50_000)
    assert "larger than 10000 bytes" in World(lambda path: endless).refusal("http://pictures.test:0/").message


def test_time_is_bounded():
    assert "within 0.2 s" in World(lambda path: b"HTTP/1.1 200 OK\r\n", timeout_s=0.2).refusal("http://pictures.test:0/").message


def test_the_number_of_urls_is_bounded():
    urls = [f"http://pictures.test:0/{number}" for number in range(MAX_URLS + 1)]
    world = World(lambda path: reply())
    assert str(MAX_URLS) in world.refusal(*urls).message
    assert world.asked == []


@pytest.mark.parametrize(("status", "media_type"), [("404 Not Found", "image/png"), ("200 OK", "text/html"), ("200 OK", "application/pdf")])
def test_what_is_no_image_is_not_sent_as_one(status, media_type):
    body = b"<html>" if media_type == "text/html" else PNG
    assert World(lambda path: reply(body, media_type, status)).refusal("http://pictures.test:0/").code == "url_unreadable"


@pytest.mark.parametrize(("told", "kind", "body", "media_type"), [
    ("application/octet-stream", "image", PNG, "image/png"),
    ("", "image", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
    ("binary/octet-stream", "document", b"%PDF-1.7 ...", "application/pdf"),
    ("image/jpeg; charset=x", "image", b"\xff\xd8\xff", "image/jpeg"),
    ("text/plain", "document", b"hello", "text/plain"),
])  # fmt: skip
def test_the_type_is_as_told_or_as_the_first_bytes_say(told, kind, body, media_type):
    assert World(lambda path: reply(body, told)).fetch("http://pictures.test:0/x", kind=kind)[0].media_type == media_type


def test_a_host_that_does_not_answer_is_named():
    world = World(lambda path: reply())
    assert "pictures.test:1025" in world.refusal("http://pictures.test:1025/").message


def test_it_can_be_switched_off():
    world = World(lambda path: reply(), is_on=False)
    assert "upstream.fetch_urls" in world.refusal("http://pictures.test:0/").message
    assert world.asked == []
