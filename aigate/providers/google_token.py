"""Google's access tokens: what is asked for one, and what the answer says. Pure: the time is an argument, nothing is sent here.

Three kinds of credentials, as Google's own tools write them: a service account's key file, a person's `gcloud auth application-default`
file, and the metadata server of a machine of Google's. No message here holds a key or a token.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import urlencode

import msgspec

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
TOKEN_URI = "https://oauth2.googleapis.com/token"
METADATA_HOST = "metadata.google.internal"
METADATA_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
ASSERTION_S = 3600  # the longest that Google takes
MAX_LIFE_S = 86_400.0
MAX_WORDS = 300

_FORM = (b"content-type", b"application/x-www-form-urlencoded")


class Credential(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one of Google's files says, as far as it is needed."""

    type: str
    project_id: str = ""
    quota_project_id: str = ""
    token_uri: str = TOKEN_URI
    client_email: str = ""  # service_account
    private_key: str = ""
    private_key_id: str = ""
    client_id: str = ""  # authorized_user
    client_secret: str = ""
    refresh_token: str = ""

    def __repr__(self) -> str:  # a key must not reach a log through a repr
        return f"Credential({self.type!r})"

    @property
    def project(self) -> str:
        return self.project_id or self.quota_project_id


class Ask(NamedTuple):
    """One HTTP request for a token."""

    method: bytes
    url: str
    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes


_NEEDED = {
    "service_account": ("client_email", "private_key"),
    "authorized_user": ("client_id", "client_secret", "refresh_token"),
    "metadata": (),
}


def read_credential(text: str) -> Credential:
    """A ValueError says what is wrong with it."""
    try:
        credential = msgspec.json.decode(text, type=Credential)
    except (msgspec.DecodeError, UnicodeEncodeError):
        raise ValueError("is not one of Google's JSON key files") from None
    if credential.type not in _NEEDED:
        raise ValueError(f"is of type {credential.type[:40]!r}; taken are service_account and authorized_user")
    missing = [name for name in _NEEDED[credential.type] if not getattr(credential, name)]
    if missing:
        raise ValueError(f"lacks {', '.join(missing)}")
    if credential.type == "service_account":
        try:
            _signer(credential.private_key)
        except ValueError:
            raise ValueError("holds a private_key that is no RSA key in PEM") from None
    return credential


def metadata_credential(host: str) -> Credential:
    return Credential("metadata", token_uri=f"http://{host or METADATA_HOST}{METADATA_PATH}")


def vertex_url(project: str, location: str) -> str:
    """The base URL of Vertex AI's resources of one project in one place: a region, `global`, `us` or `eu`."""
    host = "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        host = f"aiplatform.{location}.rep.googleapis.com"
    elif location != "global":
        host = f"{location}-{host}"
    return f"https://{host}/v1beta1/projects/{project}/locations/{location}"


def ask_for_token(credential: Credential, unix_s: float) -> Ask:
    if credential.type == "metadata":
        return Ask(b"GET", credential.token_uri, ((b"metadata-flavor", b"Google"),), b"")
    if credential.type == "service_account":
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": sign_assertion(credential, int(unix_s))}
    else:
        form = {"grant_type": "refresh_token", "refresh_token": credential.refresh_token}
        form |= {"client_id": credential.client_id, "client_secret": credential.client_secret}
    return Ask(b"POST", credential.token_uri, (_FORM,), urlencode(form).encode())


def sign_assertion(credential: Credential, unix_s: int) -> str:
    """The signed claim (RFC 7523) that a service account exchanges for a token."""
    from cryptography.hazmat.primitives.asymmetric import padding  # here: only a gateway with such a credential needs it
    from cryptography.hazmat.primitives.hashes import SHA256

    head = {"alg": "RS256", "typ": "JWT"} | ({"kid": credential.private_key_id} if credential.private_key_id else {})
    claims = {"iss": credential.client_email, "scope": SCOPE, "aud": credential.token_uri, "iat": unix_s, "exp": unix_s + ASSERTION_S}
    signed = b".".join(_base64url(msgspec.json.encode(part)) for part in (head, claims))
    signature = _signer(credential.private_key).sign(signed, padding.PKCS1v15(), SHA256())
    return (signed + b"." + _base64url(signature)).decode()


@lru_cache(4)
def _signer(private_key: str):
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(private_key.encode(), None)
    except Exception as error:  # noqa: BLE001 - whatever it finds wrong, its words may quote the key
        raise ValueError("no key") from error
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("no RSA key")
    return key


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


class _Token(msgspec.Struct):
    access_token: str
    expires_in: float = 3600.0


def read_token(body: bytes) -> tuple[str, float]:
    """(the token, seconds that it lives). ValueError for what is none."""
    try:
        token = msgspec.json.decode(body, type=_Token)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("its answer holds no access_token") from None
    if not token.access_token.isascii() or not token.access_token.isprintable() or " " in token.access_token or not token.access_token:
        raise ValueError("its access_token cannot be sent in a header")
    if not token.expires_in >= 1:
        raise ValueError("its access_token has expired already")
    return token.access_token, min(token.expires_in, MAX_LIFE_S)


def read_refusal(status: int, body: bytes) -> str:
    """What the token endpoint said, in its own short words."""
    try:
        fields = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        fields = None
    said = [str(fields[key]) for key in ("error", "error_description") if fields.get(key)] if isinstance(fields, dict) else []
    words = "".join(char for char in ": ".join(said) if char.isprintable())[:MAX_WORDS]
    return f"it answered {status}" + (f" ({words})" if words else "")
