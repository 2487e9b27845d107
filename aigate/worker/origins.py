"""Origins: for each provider its network origin, its request heads, and the secrets no message may show. Built at start, no I/O.

A credential is bound here to its provider's own origin: the pool's key names both, and no other code sees it.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from aigate import __version__
from aigate.core.target import GOOGLE_TOKEN, Provider, Target
from aigate.dialects.openai_errors import redact
from aigate.errors import ProviderError
from aigate.worker.client import Origin, parse_base_url
from aigate.worker.heads import FieldBlock, field_block, request_start, sized_request_head

Fields = tuple[tuple[bytes, bytes], ...]
MAX_HEADS = 4096  # targets whose heads are kept made


class Origins:
    def __init__(self, providers: Iterable[Provider]):
        self._origins: dict[str, Origin] = {}
        self._heads: dict[tuple[str, str, Fields], FieldBlock] = {}  # what the request heads to one target share
        self._secrets: tuple[str, ...] = ()
        self._tokens: dict[str, tuple[str, ...]] = {}  # provider → the access token in force, and the one before it
        for provider in providers:
            origin, _ = parse_base_url(provider.base_url)
            self._origins[provider.name] = origin
            if len(provider.credential) >= 8:
                self._secrets += (provider.credential,)

    def take_token(self, name: str, token: str) -> None:
        """From now on requests to this provider bear it."""
        past = self._tokens.get(name, ())
        self._tokens[name] = (token, *past[:1])
        self._secrets = (*(secret for secret in self._secrets if secret not in past), *self._tokens[name])
        self._heads.clear()

    def origin(self, provider: Provider) -> Origin:
        origin = self._origins[provider.name]
        return replace(origin, credential_id=provider.credential_id) if provider.credential_id else origin

    def redact(self, text: str, provider: Provider) -> str:
        """`text` without our credentials, the caller's own or anything that looks like one."""
        return redact(text, (*self._secrets, provider.credential) if provider.credential_id else self._secrets)

    def clean(self, error: ProviderError, provider: Provider) -> None:
        """Redacts every text of the provider's that a client would see."""
        error.message = self.redact(error.message, provider)
        if error.param is not None:
            error.param = self.redact(error.param, provider)
        for key, value in error.extra.items():
            if isinstance(value, str):
                error.extra[key] = self.redact(value, provider)

    def head(self, target: Target, attempt_id: str, length: int, forwarded: Fields = (), *, is_stream: bool = False) -> bytes:
        """The request head of one attempt. All but ids and length is made once per target and the client's fields sent on with it."""
        path = target.stream_url_path if is_stream and target.stream_url_path else target.url_path
        key = (path, target.slug, forwarded)
        made = None if target.provider.credential_id else self._heads.get(key)
        if made is None:
            made = self._make(target, path, forwarded)
            if not target.provider.credential_id:
                if len(self._heads) >= MAX_HEADS:
                    self._heads.clear()
                self._heads[key] = made
        if target.provider.sends_attempt_id:
            made += field_block([(b"x-aig-attempt", attempt_id.encode())])
        return sized_request_head(made, length)

    def _make(self, target: Target, path: str, forwarded: Fields) -> FieldBlock:
        provider = target.provider
        fields: list[tuple[bytes, bytes]] = [
            (b"content-type", b"application/json"),
            (b"accept", b"application/json, text/event-stream"),
            (b"accept-encoding", b"identity"),
            (b"user-agent", f"aigate/{__version__}".encode()),
        ]
        if provider.credential and provider.auth == "bearer":
            fields.append((b"authorization", f"Bearer {provider.credential}".encode()))
        elif provider.auth == GOOGLE_TOKEN:
            token = provider.credential if provider.credential_id else self._tokens[provider.name][0]
            fields.append((b"authorization", f"Bearer {token}".encode()))
        elif provider.credential and provider.auth.startswith("header:"):
            fields.append((provider.auth[7:].encode(), provider.credential.encode()))
        own = {name.lower().encode(): value.encode() for name, value in provider.headers.items()}
        fields += (own | dict(forwarded)).items()
        return request_start(b"POST", path.encode(), host_field(self._origins[provider.name]), fields)


def host_field(origin: Origin) -> bytes:
    """The Host header of an origin: the port only where it is not the scheme's own."""
    if origin.unix_path is not None:
        return b"localhost"
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    is_default = origin.port == (443 if origin.scheme == "https" else 80)
    return host.encode() if is_default else f"{host}:{origin.port}".encode()
