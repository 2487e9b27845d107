"""Media by https URL: the certificate is checked against the name, and the guard holds over TLS as it does without."""

from __future__ import annotations

import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aigate.worker.client import tls_context
from tests.worker.test_fetch import PNG, PRIVATE, PUBLIC, World, _Turning, moved, reply

START = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


class Authority:
    """A certificate authority of this test's own."""

    def __init__(self, folder: Path, name: str):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = self._builder(self.name, self.key, START + datetime.timedelta(days=36_500))
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        made = builder.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True).sign(self.key, SHA256())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(made.public_bytes(Encoding.PEM))

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, until: datetime.datetime) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(START).not_valid_after(until)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return builder.add_extension(identifier, False).add_extension(issuer, False)

    def server(self, *names: str, days: int = 36_500) -> ssl.SSLContext:
        """What a server with a certificate for these names listens with."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(x509.Name([]), key, START + datetime.timedelta(days=days))
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        made = builder.add_extension(alternatives, True).sign(self.key, SHA256())
        chain = self.folder / f"{names[0]}-{days}.pem"
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        chain.write_bytes(private + made.public_bytes(Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        return context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


class TlsWorld(World):
    def __init__(self, authority: Authority, answer, *, trusts: Authority | None = None, certified=("pictures.test", "inside.test", "turning.test"), days=36_500):  # type: ignore[no-untyped-def]
        super().__init__(answer)
        self.server_tls = authority.server(*certified, days=days)
        self.client_tls = tls_context(str((trusts or authority).file))


def test_a_picture_is_read_over_tls_by_the_name_of_its_host(authority: Authority) -> None:
    world = TlsWorld(authority, lambda path: reply())
    [media] = world.fetch("https://pictures.test:0/a.png")
    assert (media.media_type, media.url, bool(media.data)) == ("image/png", None, True)
    assert world.asked == ["/a.png"]
    assert f"host: pictures.test:{world.port}" in world.heads[0].lower()


@pytest.mark.parametrize("problem", ["another name", "another authority", "has expired"])
def test_a_certificate_that_is_not_the_hosts_is_refused(authority: Authority, tmp_path: Path, problem: str) -> None:
    certified = ("elsewhere.test",) if problem == "another name" else ("pictures.test",)
    trusts = Authority(tmp_path, "other") if problem == "another authority" else None
    world = TlsWorld(authority, lambda path: reply(), trusts=trusts, certified=certified, days=1 if problem == "has expired" else 36_500)
    error = world.refusal("https://pictures.test:0/a.png")
    assert (error.code, world.asked) == ("url_unreadable", [])  # not a byte of the request was told to it


@pytest.mark.parametrize("host", ["inside.test", PRIVATE, "[::ffff:127.0.0.1]"])
def test_a_host_inside_is_not_even_greeted(authority: Authority, host: str) -> None:
    world = TlsWorld(authority, lambda path: reply())
    assert world.refusal(f"https://{host}:0/").code == "url_refused"
    assert world.asked == []


@pytest.mark.parametrize("location", ["https://inside.test:0/secret", f"https://{PRIVATE}:0/secret", f"http://{PRIVATE}:0/secret", "//inside.test:0/secret"])
def test_a_redirect_over_tls_that_leads_inside_is_refused(authority: Authority, location: str) -> None:
    world = TlsWorld(authority, lambda path: moved(location))
    assert world.refusal("https://pictures.test:0/a").code == "url_refused"
    assert world.asked == ["/a"]


def test_a_redirect_over_tls_is_followed_where_it_may_lead(authority: Authority) -> None:
    world = TlsWorld(authority, lambda path: reply() if path == "/b" else moved("https://turning.test:0/b"))
    world.names["turning.test"] = [PUBLIC]
    assert world.fetch("https://pictures.test:0/a")[0].data
    assert world.asked == ["/a", "/b"]


def test_a_resolver_that_changes_its_answer_gains_nothing(authority: Authority) -> None:
    """One answer is asked for at each connection, judged, and connected to: there is no second look-up in between."""
    world = TlsWorld(authority, lambda path: reply(PNG) if path == "/2" else moved("https://turning.test:0/2"))
    world.names = _Turning(world.names, "turning.test", [[PUBLIC], [PRIVATE]])
    assert world.refusal("https://turning.test:0/1").code == "url_refused"
    assert world.asked == ["/1"]
    answers = [[PUBLIC], [PUBLIC], [PRIVATE]]
    world.names = _Turning(world.names, "turning.test", answers)
    assert world.fetch("https://turning.test:0/1")[0].data
    assert answers == [[PRIVATE]]  # two connections, two look-ups
