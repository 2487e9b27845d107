"""What must hold of the configured providers and models as wholes. Messages name the file, the key and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from aigate.config import DIALECTS, JOBS, ConfigError, ProviderConfig, nearest
from aigate.providers.table import BATCHES_OF, ROWS

_PROVIDER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


def check_providers(providers: Mapping[str, ProviderConfig], path: str | None) -> None:
    for name, provider in providers.items():
        where = f"{path}: providers.{name}" if path else f"providers.{name}"
        if not _PROVIDER_NAME.fullmatch(name):
            raise ConfigError(f"{where}: a provider's name is lower-case letters, digits, '.', '_', '-'")
        if name not in ROWS and not provider.base_url:
            raise ConfigError(f"{where}.base_url: missing, as {name!r} is not built in; built in are {', '.join(ROWS)}")
        if name not in ROWS and not (provider.dialect or provider.jobs):
            raise ConfigError(
                f"{where}.dialect: missing, as {name!r} is not built in; allowed are {', '.join(DIALECTS)}"
                f" (or, for media jobs alone, jobs: {', '.join(JOBS)})"
            )
        chat = provider.dialect or (ROWS[name].dialects.get("chat", "") if name in ROWS else "")
        if provider.batches and chat not in BATCHES_OF:
            raise ConfigError(f"{where}.batches: there are none of this format; leave it out")
        for field in ("base_url", "jobs_base_url"):
            if url := getattr(provider, field):
                _check_url(url, f"{where}.{field}")


def check_models(models: Iterable[str], providers: Mapping[str, ProviderConfig], path: str | None) -> None:
    aliases = [alias for row in (*ROWS.values(), *providers.values()) for alias in row.aliases or ()]
    for slug in models:
        where = f'{path}: models."{slug}"' if path else f'models."{slug}"'
        name, slash, _ = slug.partition("/")
        if not slash:
            raise ConfigError(f'{where}: a model is named provider/model, such as "mock/gpt"')
        if name not in (*ROWS, *providers, *aliases):
            raise ConfigError(f"{where}: there is no provider {name!r}: add [providers.{name}]; {nearest(name, (*providers, *ROWS))}")


def _check_url(url: str, where: str) -> None:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"{where}: a URL is printable ASCII without spaces; write other characters as %XX")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    if parts.username or parts.password:
        raise ConfigError(f"{where}: has a user name or password in it; use api_key")
    if parts.scheme not in ("http", "https", "unix") or (parts.scheme != "unix" and not host):
        raise ConfigError(f"{where}: {url!r}: expected http://HOST/…, https://HOST/… or unix:///SOCKET:/…")
    if parts.scheme == "unix" and (parts.netloc or len(parts.path.partition(":")[0]) < 2):
        raise ConfigError(f"{where}: {url!r}: a Unix socket is written unix:///path/to.sock:/v1")
    if port == 0:
        raise ConfigError(f"{where}: {url!r}: a port is between 1 and 65535")
    if parts.query or parts.fragment or url[-1] in "?#":
        raise ConfigError(f"{where}: {url!r}: must end before '?' and '#'")
