"""What is asked of Google for an access token, and what a wrong key file or answer is told as."""

import base64
import json
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from aigate.providers.google_token import ask_for_token, metadata_credential, read_credential, read_refusal, read_token, vertex_url


def pem(key):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


KEY = rsa.generate_private_key(65537, 2048)
ACCOUNT = {"type": "service_account", "project_id": "p1", "client_email": "robot@p1.iam", "private_key": pem(KEY), "universe_domain": "x"}
USER = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r&t", "quota_project_id": "q"}


def unbase64(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def test_a_service_account_signs_what_it_claims():
    ask = ask_for_token(read_credential(json.dumps(ACCOUNT)), 1_800_000_000.7)
    form = parse_qs(ask.body.decode())
    assert (ask.method, ask.url, form["grant_type"]) == (b"POST", "https://oauth2.googleapis.com/token", ["urn:ietf:params:oauth:grant-type:jwt-bearer"])
    head, claims, signature = form["assertion"][0].split(".")
    KEY.public_key().verify(unbase64(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256())
    assert json.loads(unbase64(head)) == {"alg": "RS256", "typ": "JWT"}
    assert json.loads(unbase64(claims)) == {
        "iss": "robot@p1.iam", "scope": "https://www.googleapis.com/auth/cloud-platform", "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_800_000_000, "exp": 1_800_003_600,
    }  # fmt: skip


def test_a_person_and_a_machine_ask_in_their_own_way():
    person = read_credential(json.dumps(USER))
    assert parse_qs(ask_for_token(person, 0).body.decode()) == {
        "grant_type": ["refresh_token"], "refresh_token": ["r&t"], "client_id": ["c"], "client_secret": ["s"],
    }  # fmt: skip
    assert person.project == "q"
    machine = ask_for_token(metadata_credential(""), 0)
    assert (machine.method, machine.body, machine.fields) == (b"GET", b"", ((b"metadata-flavor", b"Google"),))
    assert machine.url == "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not JSON", "is not one of Google's"),
        ("[1]", "is not one of Google's"),
        (json.dumps({"type": "external_account"}), "external_account"),
        (json.dumps({**ACCOUNT, "private_key": ""}), "lacks private_key"),
        (json.dumps({**ACCOUNT, "private_key": "-----BEGIN hush"}), "no RSA key"),
        (json.dumps({**ACCOUNT, "private_key": pem(ec.generate_private_key(ec.SECP256R1()))}), "no RSA key"),
        (json.dumps({**USER, "refresh_token": ""}), "lacks refresh_token"),
    ],
)
def test_a_wrong_file_is_told_without_its_content(text, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_credential(text)
    assert "hush" not in str(caught.value)


def test_a_credential_is_not_shown():
    assert "PRIVATE" not in repr(read_credential(json.dumps(ACCOUNT))) and "r&t" not in repr(read_credential(json.dumps(USER)))


def test_an_answer_gives_the_token_and_its_life():
    assert read_token(b'{"access_token":"ya29.x","expires_in":3599,"token_type":"Bearer"}') == ("ya29.x", 3599.0)
    for broken in (b"", b"[]", b'{"access_token":""}', b'{"access_token":"a b"}', b'{"access_token":"a\\r\\nx: y"}', b'{"access_token":"a","expires_in":0}', b"\xff"):
        with pytest.raises(ValueError):
            read_token(broken)


def test_a_refusal_is_told_in_googles_words():
    assert read_refusal(400, b'{"error":"invalid_grant","error_description":"Invalid JWT Signature."}') == "it answered 400 (invalid_grant: Invalid JWT Signature.)"
    assert read_refusal(502, b"<html>") == "it answered 502"


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"), ("europe-west1", "europe-west1-aiplatform.googleapis.com"), ("us", "aiplatform.us.rep.googleapis.com"),
    ],
)  # fmt: skip
def test_each_place_has_its_host(location, host):
    assert vertex_url("p1", location) == f"https://{host}/v1beta1/projects/p1/locations/{location}"
