"""The pool: where connections come from and who may have them; base URLs, TLS, compressed bodies."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import ipaddress
import socket
import ssl
import zlib
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from msgspec.structs import replace

from aigate.catalog.live import socket_url
from aigate.errors import ProviderError
from aigate.worker.client import Origin, decode_body, parse_base_url, tls_context
from tests.worker.raw_provider import (
    OK,
    REQUEST,
    ClockedLoop,
    Peer,
    Script,
    answers,
    call,
    failure,
    pool,
    provider,
    run,
)  # fmt: skip

# --- base URLs ---


@pytest.mark.parametrize(
    "url, origin, prefix, authority",
    [
        ("https://api.example.com/v1", Origin("https", "api.example.com", 443), "/v1", "api.example.com"),
        ("https://API.Example.com/v1/", Origin("https", "api.example.com", 443), "/v1", "api.example.com"),
        ("http://127.0.0.1:8000", Origin("http", "127.0.0.1", 8000), "", "127.0.0.1:8000"),
        ("http://[::1]:1/a/b", Origin("http", "::1", 1), "/a/b", "[::1]:1"),
        ("https://h:80/", Origin("https", "h", 80), "", "h:80"),
        ("unix:///run/sim.sock:/v1", Origin("http", "localhost", 80, unix_path="/run/sim.sock"), "/v1", "localhost"),
        ("unix:///run/sim.sock", Origin("http", "localhost", 80, unix_path="/run/sim.sock"), "", "localhost"),
        (socket_url("/my d%20ta:ü/s"), Origin("http", "localhost", 80, unix_path="/my d%20ta:ü/s"), "/v1", "localhost"),
    ],
)
def test_a_base_url_is_an_origin_and_a_prefix(url: str, origin: Origin, prefix: str, authority: str) -> None:
    assert parse_base_url(url) == (origin, prefix)
    assert origin.authority == authority


@pytest.mark.parametrize(
    "url, problem",
    [
        ("api.example.com/v1", "starts with"),
        ("ftp://h/", "starts with"),
        ("", "starts with"),
        ("https:///v1", "names a host"),
        ("https://user:hunter2@h/v1", "no user or password"),
        ("https://h/v1?key=hunter2", "no query"),
        ("https://h/v1#hunter2", "no query and no fragment"),
        ("https://h/v1?", "no query"),
        ("https://h:99999/", "[Pp]ort"),
        ("https://h:0/", "port"),
        ("https://h:x/", "[Pp]ort"),
        ("https://[::1/", "IPv6"),
        ("https://h /", "without spaces"),
        ("https://h\r\nx: y/", "printable"),
        ("https://bücher.example/", "ASCII"),
        ("unix://run/sim.sock:/v1", "unix:///"),
        ("unix:///", "unix:///"),
    ],
)
def test_a_bad_base_url_is_refused_by_its_problem_without_a_secret(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_base_url(url)
    assert "hunter2" not in str(caught.value)


# --- the pool ---


def test_the_last_released_is_the_first_taken() -> None:
    async def main() -> None:
        async with provider(answers(OK, OK)) as origin, pool() as outbound:
            first, second = await outbound.connect(origin), await outbound.connect(origin)
            first.release()
            second.release()
            assert [outbound.take(origin), outbound.take(origin), outbound.take(origin)] == [second, first, None]

    run(main)


def test_two_credentials_never_share_a_connection() -> None:
    async def main() -> None:
        async with provider(answers(OK)) as origin, pool() as outbound:
            (await outbound.connect(replace(origin, credential_id="cred_1"))).release()
            assert outbound.take(replace(origin, credential_id="cred_2")) is None
            assert outbound.take(origin) is None
            assert outbound.take(replace(origin, credential_id="cred_1")) is not None

    run(main)


def test_warming_fills_up_to_the_count_and_the_next_call_uses_it() -> None:
    async def main() -> None:
        async with provider(answers(OK)) as origin, pool() as outbound:
            assert await outbound.warm(origin, 2) == 2
            assert await outbound.warm(origin, 3) == 3
            assert await outbound.warm(origin, 1) == 3
            connection = await outbound.connect(origin)
            assert connection.is_reused and outbound.stats() == (3, 2, 3)

    run(main)


def test_warming_a_dead_origin_is_no_error() -> None:
    async def main() -> None:
        async with pool() as outbound:
            assert await outbound.warm(unused_origin(), 2) == 0

    run(main)


def test_closing_closes_idle_and_busy_and_keeps_nothing_after() -> None:
    async def main() -> None:
        async with provider(answers(OK)) as origin, pool() as outbound:
            await outbound.warm(origin, 1)
            busy = await asyncio.gather(outbound.connect(origin), outbound.connect(origin))
            busy[0].send(REQUEST)
            waiting = asyncio.ensure_future(busy[0].head(5))
            await asyncio.sleep(0)
            outbound.close()
            with pytest.raises(ProviderError, match="given up"):
                await waiting
            late = await outbound.connect(origin)
            assert late.is_closed and outbound.stats()[:2] == (0, 0)

    run(main)


def test_small_writes_leave_at_once() -> None:
    async def main() -> None:
        loop = ClockedLoop()
        async with provider(answers(OK)) as origin, pool(loop=loop) as outbound:
            await call(outbound, origin)
            sock = loop.transports[0].get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1

    run(main)


def test_a_unix_socket_is_an_origin_like_any_other(tmp_path: Path) -> None:
    async def main() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await answers(OK, OK)(Peer(reader, writer))
            writer.close()

        path = str(tmp_path / "p.sock")
        server = await asyncio.start_unix_server(serve, path)
        async with pool() as outbound:
            origin, _ = parse_base_url(f"unix://{path}:/v1")
            assert (await call(outbound, origin))[1] == (await call(outbound, origin))[1] == b"ok"
            assert outbound.stats().opened == 1
            missing, _ = parse_base_url(f"unix://{path}x:/v1")
            assert (await failure(outbound.connect(missing))).kind == "refused"
        server.close()
        await server.wait_closed()

    run(main)


# --- no connection ---


def unused_origin() -> Origin:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Origin("http", "127.0.0.1", sock.getsockname()[1], credential_id="cred_secret")


def test_a_refused_connection_names_the_host_and_why() -> None:
    async def main() -> None:
        async with pool() as outbound:
            origin = unused_origin()
            error = await failure(outbound.connect(origin))
            assert (error.kind, error.status, error.retryable) == ("refused", 502, True)
            assert error.message == f"Could not connect to {origin.authority}: connection refused."
            assert outbound.stats() == (0, 0, 0)

    run(main)


@pytest.mark.parametrize("host", ["a." * 200 + "example", "a" * 64 + ".example"])  # too long to ask anyone about
def test_a_name_that_does_not_resolve_is_refused(host: str) -> None:
    async def main() -> None:
        async with pool() as outbound:
            error = await failure(outbound.connect(Origin("http", host, 80)))
            assert error.kind == "refused" and host in error.message and "does not resolve" in error.message

    run(main)


def test_a_handshake_that_never_ends_is_a_timeout() -> None:
    async def silent(peer: Peer) -> None:
        await peer.closed()

    async def main() -> None:
        async with provider(silent) as origin, pool(connect_timeout_s=0.05) as outbound:
            error = await failure(outbound.connect(replace(origin, scheme="https")))
            assert (error.kind, error.status, error.code) == ("timeout", 504, "provider_timeout")
            assert outbound.stats() == (0, 0, 0)

    run(main)


# --- TLS ---


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1, with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provider")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "provider.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        signed.public_bytes(pem)
        + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


def test_tls_checks_the_certificate_and_speaks_http_1(certificate: Path) -> None:
    agreed: list[str] = []

    def noting(script: Script) -> Script:
        async def noted(peer: Peer) -> None:
            agreed.append(peer.writer.get_extra_info("ssl_object").selected_alpn_protocol())
            await script(peer)

        return noted

    async def main() -> None:
        async with (
            provider(noting(answers(OK, OK)), ssl=server_context(certificate)) as origin,
            pool(tls=tls_context(str(certificate))) as outbound,
        ):
            assert (await call(outbound, origin))[1] == (await call(outbound, origin))[1] == b"ok"
            assert outbound.stats() == (1, 1, 1) and agreed == ["http/1.1"]

    run(main)


def test_an_unknown_authority_or_another_name_is_refused(certificate: Path) -> None:
    async def main() -> None:
        async with provider(answers(OK), ssl=server_context(certificate)) as origin:
            async with pool() as outbound:  # the system's authorities only
                error = await failure(outbound.connect(origin))
                assert error.kind == "refused" and "certificate was refused" in error.message
            async with pool(tls=tls_context(str(certificate))) as outbound:
                error = await failure(outbound.connect(replace(origin, host="localhost")))
                assert error.kind == "refused" and "certificate was refused" in error.message
            async with pool(tls=tls_context(verify=False)) as outbound:
                assert (await call(outbound, origin))[:2] == (200, b"ok")

    run(main)


def test_tls_to_a_server_without_it_is_refused() -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async def main() -> None:
        async with provider(plain) as origin, pool() as outbound:
            error = await failure(outbound.connect(replace(origin, scheme="https")))
            assert error.kind == "refused" and "TLS failed" in error.message

    run(main)


def test_a_tls_body_that_breaks_off_is_cut(certificate: Path) -> None:
    async def main() -> None:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok")

        async with (
            provider(script, ssl=server_context(certificate)) as origin,
            pool(tls=tls_context(str(certificate))) as outbound,
        ):
            with pytest.raises(ProviderError) as caught:
                await call(outbound, origin)
            assert caught.value.kind == "cut"

    run(main)


# --- compressed bodies ---

TEXT = b'{"id":"chatcmpl-1"}' * 50


def bare_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize(
    "encoding, encoded",
    [
        (b"", TEXT),
        (b"identity", TEXT),
        (b"gzip", gzip.compress(TEXT, mtime=0)),
        (b" GZip ", gzip.compress(TEXT[:100], mtime=0) + gzip.compress(TEXT[100:], mtime=0)),
        (b"x-gzip", gzip.compress(TEXT, mtime=0)),
        (b"deflate", zlib.compress(TEXT)),
        (b"deflate", bare_deflate(TEXT)),
    ],
)
def test_a_compressed_body_is_unpacked_up_to_the_cap(encoding: bytes, encoded: bytes) -> None:
    assert decode_body(encoded, encoding, len(TEXT)) == TEXT
    if encoding.strip() not in (b"", b"identity"):
        with pytest.raises(ProviderError, match="unpacks to more"):
            decode_body(encoded, encoding, len(TEXT) - 1)


@pytest.mark.parametrize(
    "encoding, encoded, problem",
    [
        (b"br", b"x", "encoded as 'br'"),
        (b"gzip", b"not gzip", "cannot be unpacked"),
        (b"gzip", gzip.compress(TEXT, mtime=0)[:-9], "cut short"),
        (b"gzip", gzip.compress(TEXT, mtime=0) + b"junk", "cannot be unpacked"),
        (b"gzip", gzip.compress(bytes(50 << 20)), "unpacks to more"),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_a_bad_reply(encoding: bytes, encoded: bytes, problem: str) -> None:
    with pytest.raises(ProviderError, match=problem) as caught:
        decode_body(encoded, encoding, 1 << 20)
    assert caught.value.kind == "bad_reply"
