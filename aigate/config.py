"""Configuration: its fields with their defaults, and `load`, which merges command line > environment > file > default.

Owns every name an operator may set and every message about a wrong one. `load` reads one file and nothing else: the environment
is an argument, so nothing in aigate reads it after start. The comments here are the settings page (docs/settings.md, made by `make docs`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
from msgspec import Meta

MIB = 1 << 20
DEFAULT_FILE = "aigate.toml"
DIALECTS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")  # wire formats a configured provider may speak
JobFormat = Literal[  # … and those for media jobs (aigate/jobdialects)
    "", "openai-videos", "google-veo", "google-omni", "runway", "luma", "replicate", "fal", "elevenlabs-music", "stability", "meshy",
    "aigate",
]  # fmt: skip
JOBS = tuple(filter(None, get_args(JobFormat)))

Port = Annotated[int, Meta(ge=0, le=65535)]
Count = Annotated[int, Meta(ge=1)]
Natural = Annotated[int, Meta(ge=0)]
Seconds = Annotated[float, Meta(gt=0, le=86400)]
Delay = Annotated[float, Meta(ge=0, le=86400)]
HeaderText = Annotated[str, Meta(pattern=r"^[!-~]*$")]  # what a header can carry
Dollars = Annotated[float, Meta(ge=0, le=1e9)]


class ConfigError(Exception):
    """A setting is wrong: the message names where it was read, the key, and what is allowed. The operator can fix it."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections. No values in its repr: several hold secrets, and a repr reaches logs."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(…)"


class Server(Section):
    """The listener and the processes behind it."""

    host: str = "127.0.0.1"  # address to listen on
    port: Port = 4000  # TCP port; 0 takes a free one
    workers: Annotated[int, Meta(ge=1, le=256)] = 1  # data-plane processes; one a core is the most that helps
    data_dir: str = "./data"  # everything that is kept: database, journals, keys (relative to the working directory)
    max_body_bytes: Annotated[int, Meta(ge=1024)] = 32 * MIB  # largest request body of a model call
    max_upload_bytes: Annotated[int, Meta(ge=1024)] = 100 * MIB  # largest body of any other request
    header_timeout_s: Seconds = 10.0  # for a whole request head
    body_timeout_s: Seconds = 60.0  # for a whole request body
    keep_alive_s: Seconds = 75.0  # an idle client connection is kept this long
    drain_s: Delay = 30.0  # running calls may take this long after SIGTERM
    sse_keep_alive_s: Seconds = 15.0  # silence in a stream before a comment line keeps it open
    force_neutral: bool = False  # translate even where client and provider speak the same format (a check, not for production)
    public_url: str = ""  # where others reach this server (https://gate.example.com): for links to results; empty = as the caller reached it
    allowed_hosts: tuple[str, ...] = ()  # Host headers answered, against DNS rebinding; empty = any

    @property
    def url(self) -> str:
        """Where a client on this machine reaches the server."""
        host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


class Auth(Section):
    """Who may call."""

    admin_key: HeaderText = ""  # the root key; empty = data_dir/admin.key, made at the first start. Also AIGATE_ADMIN_KEY
    provider_key: str = ""  # seals stored provider keys: 32 bytes in base64, several with commas, newest first; empty = data_dir/provider.key
    max_staleness_s: Seconds = 300.0  # known keys are honoured this long while the keeper is away


class Ledger(Section):
    """How calls are written down."""

    sync_ms: Annotated[int, Meta(ge=1, le=10_000)] = 50  # journals reach the disk at least this often
    segment_bytes: Annotated[int, Meta(ge=256 << 10, le=1 << 30)] = 16 * MIB  # size of one journal file
    retention_days: Natural = 0  # rows older than this are deleted; 0 = kept for ever
    default_max_output_tokens: Count = 32_768  # bound on the output of a model whose own limit is not known
    own_key_usd_per_mtok: Dollars = 0.0  # charged per million tokens of a call on its caller's own provider key


class Upstream(Section):
    """Connections to providers."""

    connect_timeout_s: Seconds = 10.0  # for TCP and TLS together
    idle_s: Seconds = 30.0  # an idle connection is kept this long
    max_reply_bytes: Annotated[int, Meta(ge=1024)] = 64 * MIB  # largest plain reply
    ca_file: str = ""  # PEM file of certificate authorities; empty = the system's
    tls_verify: bool = True  # false accepts any certificate (never over the internet)
    fetch_urls: bool = True  # read images and documents given by URL for models that take them as data only; never from private addresses
    fetch_max_bytes: Annotated[int, Meta(ge=1024)] = 20 * MIB  # … of one call together
    fetch_timeout_s: Seconds = 15.0  # … for all of them


class Routing(Section):
    """Retries, fallback, circuit breaker."""

    max_attempts: Annotated[int, Meta(ge=1, le=20)] = 3  # dispatches of one call, retries and fallbacks together
    budget_s: Delay = 8.0  # no new attempt starts later than this after the call
    retry_base_ms: Natural = 250  # first wait between attempts; doubles, with jitter
    breaker_failures: Count = 5  # failures in a row that open a target's breaker
    breaker_open_s: Seconds = 10.0  # how long before one probe is let through


class Responses(Section):
    """Responses of /v1/responses that are kept, for calls that go on from them with `previous_response_id`."""

    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 30  # they are deleted when this old; 0 = none is kept


class Evals(Section):
    """Evals of models on a dataset."""

    judge_model: str = ""  # scores answers where an eval names no judge of its own; empty = none does
    embedding_model: str = ""  # embeds answers where an eval names none of its own
    max_answers: Annotated[int, Meta(ge=1, le=1_000_000)] = 10_000  # of one eval: items times candidates
    max_output_tokens: Count = 4_096  # of an answer whose item does not say
    sync_answers: Natural = 100  # an eval of so many answers or fewer is waited for by the request that makes it …
    wait_s: Delay = 50.0  # … at most so long
    concurrency: Annotated[int, Meta(ge=1, le=1000)] = 8  # calls of one eval at a time
    retention_days: Natural = 0  # ended evals older than this are deleted, unless they answer as a model; 0 = kept for ever


class Jobs(Section):
    """Videos, music and 3D models: work that takes minutes, and its results."""

    video_model: str = ""  # what auto/video stands for; empty = the first there is
    music_model: str = ""  # … auto/music
    model_3d: str = ""  # … auto/3d
    deadline_s: Seconds = 3600.0  # a job that is not done by then has failed
    poll_max_s: Seconds = 10.0  # longest wait between two looks at a job that runs
    max_active: Count = 1000  # jobs of one account that are not done
    retention_days: Annotated[int, Meta(ge=1, le=36_500)] = 7  # results are deleted when this old
    max_result_bytes: Annotated[int, Meta(ge=1024)] = 2048 * MIB  # largest single file taken from a provider


class Files(Section):
    """Files of /v1/files, and where they and the results of jobs are kept."""

    store: str = ""  # empty = data_dir/files, or s3://bucket/prefix (needs the extra "s3"; its credentials are the environment's)
    s3_endpoint: str = ""  # address of an S3-compatible store that is not Amazon's
    max_bytes: Annotated[int, Meta(ge=1024)] = 100_000_000  # largest file; the limit on uploads grows with it
    max_tenant_bytes: Natural = 10_000_000_000  # all files of one sub-account, or of one key without; 0 = no limit


class Batches(Section):
    """Batches of /v1/batches. Their lines are calls of their key: its budgets and models count, its rate limits do not."""

    max_lines: Annotated[int, Meta(ge=1, le=1_000_000)] = 50_000  # most lines of one batch
    concurrency: Annotated[int, Meta(ge=1, le=256)] = 64  # lines that run at once, of all batches; who has fewer of them comes first
    batch_concurrency: Annotated[int, Meta(ge=1, le=256)] = 32  # … of one batch
    price_factor: Annotated[float, Meta(ge=0, le=10)] = 1.0  # of a model's price, charged for a line; 0.5 = half


class Archive(Section):
    """Bodies of calls, kept so that they can be replayed. A tenant's or key's archive_days and `x-aig-archive: off` come first."""

    bodies: Literal["on", "off"] = "on"  # whether they are kept of whom nothing else is said
    retention_days: Annotated[int, Meta(ge=1, le=3650)] = 7  # how long
    max_body_bytes: Annotated[int, Meta(ge=0)] = MIB  # of a call with a larger request or reply neither is kept
    replay_retention_days: Annotated[int, Meta(ge=1, le=3650)] = 30  # replays, with the answers they compare, are deleted when this old


class Webhooks(Section):
    """Events sent to URLs that callers give."""

    allow_loopback: bool = False  # also to this machine, http:// too (development, tests); otherwise https:// on the public internet only
    retry_delays_s: tuple[Seconds, ...] = (10, 60, 300, 1800, 7200, 21_600, 54_000)  # between tries; one try more than there are of them
    timeout_s: Seconds = 10.0  # for one try
    per_host: Count = 4  # tries at once to one host
    retention_days: Annotated[int, Meta(ge=0, le=36_500)] = 30  # the log of deliveries; 0 = kept for ever


class Sim(Section):
    """The built-in simulated provider, `sim/…`."""

    enabled: bool = True  # listed and reachable; costs nothing until called


class Log(Section):
    """What goes to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"  # least severe line written


class ProviderConfig(Section):
    """One upstream service, `[providers.NAME]`. A built-in name starts from its built-in row: what is left out here stays as it is there."""

    dialect: Literal["", "openai-chat", "openai-responses", "anthropic-messages", "gemini"] = ""  # wire format; needed for a name that is not built in
    jobs: JobFormat = ""  # wire format of its videos, music and 3D models; a provider may have this one alone
    base_url: str = ""  # http(s)://host/prefix, or unix:///socket:/prefix; needed for a name that is not built in
    jobs_base_url: str = ""  # where jobs are at another address
    idempotency_header: HeaderText | None = None  # header under which it takes a key for a job, so that one can be sent again after a crash
    api_key: str = ""  # "env:NAME", "file:PATH", a literal, or "none"; empty = the built-in row's variable, none for other names
    models: tuple[str, ...] | None = None  # patterns over upstream names that pass, ["*"] = all
    unpriced: Literal["", "allow", "refuse"] = ""  # calls to a model without a price: refuse is the default
    aliases: tuple[str, ...] | None = None  # other slug prefixes for it
    headers: dict[str, str] | None = None  # sent with each request
    on_cancel: Literal["", "stops", "bills_all", "unknown"] = ""  # what a cancelled stream costs there
    reasoning_field: str = ""  # where its replies hold reasoning: reasoning_content, reasoning, parts, think_tags, none
    batches: Literal["", "native"] = ""  # native: lines of batches go to its own batch endpoint, at half its price; see docs/batches.md
    embeddings: bool | None = None  # it has an /embeddings endpoint
    sends_attempt_id: bool | None = None  # send x-aig-attempt: ids that let its own bill be compared with the ledger
    timeout_s: Seconds | None = None  # silence allowed on one attempt


class ModelConfig(Section):
    """Facts about one model, `[models."provider/name"]`. What is left out comes from the built-in catalogue, if it knows the model."""

    input_usd_per_mtok: Dollars | None = None  # dollars per million input tokens
    output_usd_per_mtok: Dollars | None = None  # dollars per million output tokens
    cached_input_usd_per_mtok: Dollars | None = None  # … read from the provider's cache; left out = as input
    cache_write_usd_per_mtok: Dollars | None = None  # … written to the provider's cache; left out = as input
    usd_per_second: Dollars | None = None  # dollars per second of video or music
    usd_per_item: Dollars | None = None  # dollars per job, whatever its length
    usd_per_credit: Dollars | None = None  # dollars per credit, for providers that count in them
    context_window: Count | None = None  # tokens, input and output together
    max_output_tokens: Count | None = None  # most tokens of one reply
    modality: str = ""  # text, embedding, image, video, music, 3d, audio-stt, audio-tts, rerank, moderation
    capabilities: tuple[str, ...] | None = None  # tools, streaming, vision, json, caching, reasoning, …
    is_reasoning: bool | None = None  # it thinks before it answers
    fallbacks: tuple[str, ...] | None = None  # slugs that may answer when it fails


class Config(Section):
    """The whole. The last three are filled in at start, never by the operator."""

    server: Server = Server()
    auth: Auth = Auth()
    ledger: Ledger = Ledger()
    upstream: Upstream = Upstream()
    routing: Routing = Routing()
    responses: Responses = Responses()
    evals: Evals = Evals()
    archive: Archive = Archive()
    jobs: Jobs = Jobs()
    files: Files = Files()
    batches: Batches = Batches()
    webhooks: Webhooks = Webhooks()
    sim: Sim = Sim()
    log: Log = Log()
    providers: dict[str, ProviderConfig] = {}
    models: dict[str, ModelConfig] = {}
    credentials: dict[str, str] = {}  # provider name → key, of every provider that has one
    root_key: str = ""  # in force: auth.admin_key or the content of data_dir/admin.key
    key_secret: bytes = b""  # the HMAC key under which client keys are kept


SECTIONS: dict[str, type[Section]] = {
    "server": Server,
    "auth": Auth,
    "ledger": Ledger,
    "upstream": Upstream,
    "routing": Routing,
    "responses": Responses,
    "evals": Evals,
    "archive": Archive,
    "jobs": Jobs,
    "files": Files,
    "batches": Batches,
    "webhooks": Webhooks,
    "sim": Sim,
    "log": Log,
}
TABLES: dict[str, type[Section]] = {"providers": ProviderConfig, "models": ModelConfig}  # sections of named entries
SECRETS = frozenset({"admin_key", "api_key", "headers", "provider_key"})  # fields whose values are never shown

_WORDS = {"array": "a list", "object": "a table", "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false"}
_JSON_WORD = re.compile(rf"\b({'|'.join(_WORDS)})\b")
_TYPES = {section: get_type_hints(section, include_extras=True) for section in (*SECTIONS.values(), *TABLES.values())}


class _Setting(NamedTuple):
    value: Any
    source: str  # how a message names it: "aigate.toml: server.port", "AIGATE_SERVER_PORT", "--port"
    is_text: bool = False  # from the environment: text to be read as the field's type


_EMPTY = _Setting(None, "")  # stands for an entry as a whole: [providers.mock] with nothing in it is one too
_Settings = dict[tuple[str, ...], _Setting]  # ("server", "port") or ("providers", "mock", "base_url")


def find_file(given: str | None, environ: Mapping[str, str]) -> str | None:
    """The settings file: --config, else AIGATE_CONFIG, else aigate.toml of the working directory, where there is one."""
    stated = given or environ.get("AIGATE_CONFIG")
    return stated or (DEFAULT_FILE if Path(DEFAULT_FILE).is_file() else None)


def load(path: str | None, environ: Mapping[str, str], overrides: Mapping[str, object] | None = None) -> Config:
    """The effective configuration. `path` None: no file. `overrides`: "section.field" → value, from the command line."""
    settings = _read_file(path) if path else {}
    settings |= _read_environ(environ, settings)
    for dotted, value in (overrides or {}).items():
        settings[tuple(dotted.split("."))] = _Setting(value, "--" + dotted.rpartition(".")[2].replace("_", "-"))
    values: dict[str, Any] = {name: {} for name in (*SECTIONS, *TABLES)}
    for key, setting in settings.items():
        section = values[key[0]] if key[0] in SECTIONS else values[key[0]].setdefault(key[1], {})
        if setting is not _EMPTY:
            section[key[-1]] = _convert(key, setting)
    tables = {name: {entry: kind(**fields) for entry, fields in values[name].items()} for name, kind in TABLES.items()}
    from aigate.config_checks import check_models, check_providers  # here: they need the types above
    from aigate.credentials import add_local_providers, add_own_resources, find_credentials

    providers = add_local_providers(tables["providers"], environ)
    credentials = find_credentials(providers, environ)
    providers = add_own_resources(providers, credentials, environ)
    check_providers(providers, path)
    check_models(tables["models"], providers, path)
    return Config(
        **{name: section(**values[name]) for name, section in SECTIONS.items()},
        providers=providers,
        models=tables["models"],
        credentials=credentials,
    )


# --- the file ---------------------------------------------------------------------------------------------------------------


def _read_file(path: str) -> _Settings:
    import tomllib  # here, as children get their configuration as JSON and start sooner without it

    try:
        document = tomllib.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 (byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from error
    settings: _Settings = {}
    for name, content in document.items():
        kind = SECTIONS.get(name) or TABLES.get(name)
        if kind is None:
            homes = [f"[{section}]" for section, fields in SECTIONS.items() if name in fields.__struct_fields__]
            meant = f"it belongs below {' or '.join(homes)}" if homes else nearest(name, (*SECTIONS, *TABLES))
            raise ConfigError(f"{path}: {name}: no such section; {meant}")
        entries = [((name,), content)]
        if name in TABLES and isinstance(content, dict):
            entries = [((name, entry), fields) for entry, fields in content.items()]
            settings |= {(name, entry): _EMPTY for entry in content}
        for key, fields in entries:
            if not isinstance(fields, dict):
                raise ConfigError(f"{path}: {'.'.join(key)}: expected a table [{'.'.join(key)}], got {fields!r}")
            for field, value in fields.items():
                _known(kind, field, f"{path}: {'.'.join((*key, field))}")
                settings[(*key, field)] = _Setting(value, f"{path}: {'.'.join((*key, field))}")
    return settings


def _known(kind: type[Section], field: str, source: str) -> None:
    if field not in kind.__struct_fields__:
        raise ConfigError(f"{source}: no such setting; {nearest(field, kind.__struct_fields__)}")


def nearest(name: str, allowed: Iterable[str]) -> str:
    allowed = tuple(allowed)
    near = _near(name, allowed)
    return f"did you mean {' or '.join(near)}?" if near else f"allowed are {', '.join(allowed)}"


def _near(name: str, allowed: Iterable[str]) -> list[str]:
    import difflib  # here, as only a mistake needs it

    return difflib.get_close_matches(name, allowed, n=2, cutoff=0.6)


# --- the environment --------------------------------------------------------------------------------------------------------


def _read_environ(environ: Mapping[str, str], from_file: _Settings) -> _Settings:
    """AIGATE_SECTION_FIELD, AIGATE_PROVIDERS_NAME_FIELD. An empty value is as good as none. What does not start with a section's
    name is not ours to judge, unless it nearly does."""
    settings: _Settings = {}
    for variable, text in environ.items():
        section, _, rest = variable.removeprefix("AIGATE_").partition("_")
        name = section.lower()
        if not variable.startswith("AIGATE_") or not text:
            continue
        if name in SECTIONS:
            _known(SECTIONS[name], rest.lower(), variable)
            settings[name, rest.lower()] = _Setting(text, variable, is_text=True)
        elif name in TABLES:
            entries = [key[1] for key in from_file if key[0] == name]
            settings[(name, *_split_entry(name, rest, entries))] = _Setting(text, variable, is_text=True)
        else:
            _refuse_misspelt(variable, name, rest.lower(), text)
    if environ.get("AIGATE_ADMIN_KEY"):
        settings["auth", "admin_key"] = _Setting(environ["AIGATE_ADMIN_KEY"], "AIGATE_ADMIN_KEY", is_text=True)
    return settings


def _refuse_misspelt(variable: str, section: str, field: str, text: str) -> None:
    """A variable that nearly starts with a section, or lacks its section, was meant to set something. Kubernetes sets AIGATE_PORT to an
    address, AIGATE_SERVICE_HOST and more for a service called aigate."""
    if variable == "AIGATE_ADMIN_KEY" or section == "service" or (section == "port" and not text.isdecimal()):
        return
    whole = f"{section}_{field}".rstrip("_")
    meant = [f"AIGATE_{name}_{whole}" for name, kind in SECTIONS.items() if whole in kind.__struct_fields__]
    if field and not meant:
        near = _near(section, (*SECTIONS, *TABLES))
        meant = [f"AIGATE_{name}_{field}" for name in near if name in TABLES or field in SECTIONS[name].__struct_fields__]
    if meant:
        raise ConfigError(f"{variable}: no such setting; did you mean {' or '.join(name.upper() for name in meant)}?")


def _split_entry(table: str, rest: str, entries: list[str]) -> tuple[str, str]:
    """MOCK_BASE_URL → ("mock", "base_url"). An entry of the file is recognised by its letters and digits alone."""
    fields = TABLES[table].__struct_fields__
    field = max((field for field in fields if rest.endswith("_" + field.upper())), key=len, default=None)
    if field is None:
        raise ConfigError(f"AIGATE_{table.upper()}_{rest}: does not end in a setting of {table}; allowed are {', '.join(fields)}")
    spelt = rest[: -len(field) - 1]
    for entry in entries:
        if re.sub(r"[^A-Z0-9]", "_", entry.upper()) == spelt:
            return entry, field
    if table == "models":
        raise ConfigError(f"AIGATE_MODELS_{rest}: there is no model in the file that this names; add its [models.\"provider/name\"]")
    return spelt.lower(), field


# --- values -----------------------------------------------------------------------------------------------------------------


def _convert(key: tuple[str, ...], setting: _Setting) -> Any:
    wanted = _TYPES[SECTIONS.get(key[0]) or TABLES[key[0]]][key[-1]]
    value = setting.value
    try:
        if setting.is_text and "tuple" in str(wanted):
            value = [part.strip() for part in value.split(",") if part.strip()]
        elif setting.is_text and "dict" in str(wanted):
            value = msgspec.json.decode(value)
        return msgspec.convert(value, wanted, strict=not setting.is_text)
    except msgspec.MsgspecError as error:
        shown = "" if key[-1] in SECRETS else f" {setting.value!r}:"
        raise ConfigError(f"{setting.source}:{shown} {_allowed(wanted, error)}") from error


def _allowed(wanted: object, error: Exception) -> str:
    if wanted == HeaderText:
        return "has a character that cannot be sent in a header (a space, a line end, an accent?)"
    choices = [choice for choice in getattr(wanted, "__args__", ()) if choice and isinstance(choice, str)]
    if choices:
        return f"allowed are {', '.join(choices)}"
    words = str(error).replace("`", "").replace(" | null", "")
    return _JSON_WORD.sub(lambda match: _WORDS[match[0]], words)
