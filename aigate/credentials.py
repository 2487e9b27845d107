"""Credentials: which provider has a key and where it came from.

Reads the environment it is given and the files that are named, at start only. No message here holds a key.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec.structs import replace

from aigate.config import ConfigError, ProviderConfig
from aigate.core.target import GOOGLE_TOKEN
from aigate.providers.google_token import Credential, metadata_credential, read_credential, vertex_url
from aigate.providers.table import ROWS, SIM

MAX_KEY_BYTES = 64 << 10


def find_credentials(providers: Mapping[str, ProviderConfig], environ: Mapping[str, str]) -> dict[str, str]:
    """Provider name → key, of every provider that has one."""
    found = {}
    for name in _names(providers):
        stated = providers[name].api_key if name in providers else ""
        variables = _variables(name, stated)
        key = next((value for variable in variables if (value := environ.get(variable, "").strip())), "")
        if not variables and stated != "none":
            key = stated
        if name in ROWS and ROWS[name].auth == GOOGLE_TOKEN:
            if key:
                found[name] = _google_credential(key, " or ".join(variables) or f"providers.{name}.api_key", environ)
            continue
        if key.startswith("file:"):
            key = _read_key(key.removeprefix("file:"), f"providers.{name}.api_key")
        if not key.isascii() or not key.isprintable() or " " in key:
            where = " or ".join(variables) or f"providers.{name}.api_key"
            raise ConfigError(f"{where}: has a character that cannot be sent in a header (a space, a line end, an accent?)")
        if key:
            found[name] = key
    return found


def _read_key(path: str, where: str) -> str:
    try:
        text = Path(path).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise ConfigError(f"{where}: {path}: cannot be read: {reason}") from None
    if len(text) > MAX_KEY_BYTES:
        raise ConfigError(f"{where}: {path}: is too large for a key")
    return text.strip()


def _google_credential(stated: str, where: str, environ: Mapping[str, str]) -> str:
    """What the file says (or `stated` itself, where it is the content), once more as JSON. `metadata`: a machine of Google's knows."""
    if stated == "metadata":
        credential = metadata_credential(environ.get("GCE_METADATA_HOST", "").strip())
    else:
        text = stated if stated.startswith("{") else _read_key(stated.removeprefix("file:"), where)
        try:
            credential = read_credential(text)
        except ValueError as error:
            raise ConfigError(f"{where}: {'it' if text is stated else stated} {error}") from None
    return msgspec.json.encode(credential).decode()


def add_own_resources(
    providers: Mapping[str, ProviderConfig], credentials: Mapping[str, str], environ: Mapping[str, str]
) -> dict[str, ProviderConfig]:
    """AZURE_OPENAI_ENDPOINT and the like: the base URL of a row that has none, unless the configuration states it."""
    found = dict(providers)
    for name, row in ROWS.items():
        address = environ.get(row.url_variable, "").strip().rstrip("/") if row.url_variable else ""
        if row.auth == GOOGLE_TOKEN:
            address = _project_url(address, credentials.get(name, ""), environ.get("GOOGLE_CLOUD_LOCATION", "").strip())
        configured = found.get(name, ProviderConfig())
        if address and not configured.base_url:
            found[name] = replace(configured, base_url=address.removesuffix(row.url_path) + row.url_path)
    return found


def _project_url(project: str, credential: str, location: str) -> str:
    """Of the project that the environment names, else the credential's own; nowhere without either."""
    if credential:
        project = project or msgspec.json.decode(credential, type=Credential).project
        return vertex_url(project, location or "global") if project else ""
    return ""


def add_local_providers(providers: Mapping[str, ProviderConfig], environ: Mapping[str, str]) -> dict[str, ProviderConfig]:
    """OLLAMA_BASE_URL and the like make a local row live. Only rows without a key variable: OPENAI_BASE_URL is a client's
    variable, and may well point at this gateway."""
    local = {
        name: ProviderConfig(base_url=url.rstrip("/"))
        for name, row in ROWS.items()
        if not row.key_variable and name != SIM and name not in providers and (url := environ.get(f"{name.upper()}_BASE_URL"))
    }
    return {**providers, **local}


def _names(providers: Mapping[str, ProviderConfig]) -> list[str]:
    return [name for name in {**ROWS, **providers} if name != SIM]


def _variables(name: str, stated: str) -> list[str]:
    """Where the key may be: as configured, else as the built-in row says (it may name several; the first that is set counts)."""
    if stated.startswith("env:"):
        if stated == "env:":
            raise ConfigError(f"providers.{name}.api_key: names no variable: env:NAME")
        return [stated.removeprefix("env:")]
    return ROWS[name].key_variable.replace(",", " ").split() if name in ROWS and not stated else []
