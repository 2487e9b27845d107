"""Which providers are live: the built-in rows with the operator's configuration laid over them. Pure."""

from __future__ import annotations

from urllib.parse import quote

from msgspec.structs import replace

from aigate.config import Config, ProviderConfig
from aigate.core.target import Provider, Quirks
from aigate.providers.table import AUTH_OF, BATCHES_OF, EMBEDDINGS_OF, HEADERS_OF, JOB_AUTH_OF, JOB_HEADERS_OF, ROWS, SIM, SIM_JOBS_PATH


def live_providers(config: Config, sim_base_url: str | None) -> tuple[dict[str, Provider], dict[str, str]]:
    """(name → row in force, name → why not), both in the order of the table, the operator's own before it."""
    live: dict[str, Provider] = {}
    dormant: dict[str, str] = {}
    for name in (*(name for name in config.providers if name not in ROWS), *ROWS):
        configured = config.providers.get(name)
        credential = config.credentials.get(name, "")
        row = ROWS.get(name)
        if name == SIM and sim_base_url is not None:
            row = replace(ROWS[SIM], base_url=sim_base_url, jobs_base_url=sim_base_url.removesuffix("/v1") + SIM_JOBS_PATH)
        elif reason := _why_not(name, configured, credential):
            dormant[name] = reason
            continue
        if configured is not None:
            row = _overlay(row, name, configured)
        live[name] = replace(row, credential=credential, auth=row.auth if credential else "none")
    return live, dormant


def _why_not(name: str, configured: ProviderConfig | None, credential: str) -> str:
    """The reason a provider cannot be used; empty when it can."""
    row = ROWS.get(name)
    if name == SIM:
        return "sim.enabled is false"
    if row is not None and row.url_variable and not (configured is not None and configured.base_url):
        return f"{row.url_variable} is not set"
    if credential or (configured is not None and configured.api_key == "none"):
        return ""
    if configured is not None and configured.api_key.startswith("env:"):
        return f"{configured.api_key[4:]} is not set"
    if row is not None and row.key_variable:
        return f"{' or '.join(row.key_variable.split())} is not set"
    if configured is None:
        return f"it has no base URL: set {name.upper()}_BASE_URL or [providers.{name}] base_url"
    return ""


def _overlay(row: Provider | None, name: str, configured: ProviderConfig) -> Provider:
    """The built-in row, or an empty one for a name of the operator's own, with what the configuration states."""
    if row is None:
        row = Provider(name=name, base_url="", dialects={}, quirks=(("*", Quirks()),), doc="configuration")
    stated: dict[str, object] = {}
    needed = HEADERS_OF.get(configured.dialect) or JOB_HEADERS_OF.get(configured.jobs) or row.headers
    if needed or configured.headers:
        stated["headers"] = {**needed, **(configured.headers or {})}
    if configured.base_url:
        stated["base_url"] = configured.base_url.rstrip("/")
    for field in ("models", "aliases", "sends_attempt_id", "idempotency_header", "timeout_s"):
        if (value := getattr(configured, field)) is not None:
            stated[field] = value
    if configured.unpriced:
        stated["unpriced"] = configured.unpriced
    if configured.jobs_base_url or configured.base_url:  # an address of its own replaces both of the row's
        stated["jobs_base_url"] = configured.jobs_base_url.rstrip("/")
    if configured.jobs and configured.jobs != row.jobs:
        stated |= {"jobs": configured.jobs} | ({} if row.dialects else {"auth": JOB_AUTH_OF.get(configured.jobs, "bearer")})
    stated["dialects"] = _dialects(row, configured)
    if configured.batches:
        stated["batches"] = BATCHES_OF[stated["dialects"].get("chat", "")]
    if configured.dialect and configured.dialect != row.dialects.get("chat"):
        stated |= {"paths": {}, "families": (), "auth": AUTH_OF.get(configured.dialect, "bearer")}  # the row's belong to its own format
    if quirks := {field: value for field in ("on_cancel", "reasoning_field") if (value := getattr(configured, field))}:
        stated["quirks"] = tuple((pattern, replace(known, **quirks)) for pattern, known in row.quirks)
    return replace(row, **stated)


def _dialects(row: Provider, configured: ProviderConfig) -> dict[str, str]:
    """Endpoint → wire format; none where all it does are jobs. An operator's own provider is taken to have embeddings unless that is denied."""
    chat = configured.dialect or row.dialects.get("chat", "")
    if not chat:
        return {}
    dialects = {"chat": chat}
    if not configured.dialect and "responses" in row.dialects:
        dialects |= {endpoint: row.dialects[endpoint] for endpoint in ("responses", "compact") if endpoint in row.dialects}
    has_embeddings = configured.embeddings
    if has_embeddings is None:
        has_embeddings = "embeddings" in row.dialects or row.name not in ROWS
    known = None if configured.dialect else row.dialects.get("embeddings")
    embeddings = known or EMBEDDINGS_OF.get(chat)
    return {**dialects, "embeddings": embeddings} if has_embeddings and embeddings else dialects


def socket_url(path: str) -> str:
    """The base URL of a server on a Unix socket, whatever characters are in its path (worker/client.py reads it back)."""
    return f"unix://{quote(path)}:/v1"


def url_prefix(base_url: str) -> str:
    """The path of a base URL on its origin: https://host/v1 → /v1, unix:///run/x.sock:/v1 → /v1."""
    scheme, _, rest = base_url.partition("://")
    _, mark, path = rest.partition(":/" if scheme == "unix" else "/")
    return ("/" + path).rstrip("/") if mark else ""
