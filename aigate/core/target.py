"""The nouns that say where a call can go: Provider, Quirks, Model, Price, Target.

They are rows of data (built in `providers/` and `catalog/`, or read from configuration); nothing here acts.
`Quirks` is the whole vocabulary of differences between providers that speak one wire format: code reads a quirk,
never a provider's name.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aigate.core.job import JobLimits

GOOGLE_TOKEN = "google-token"  # Provider.auth
NATIVE_BATCH = "native-batch"  # the variant of a price that a provider charges in its own batches


class Quirks(msgspec.Struct, frozen=True, kw_only=True):
    """How one model of one provider departs from its wire format. Parameter names are the neutral ones (core/params.py)."""

    # request
    spelling: Mapping[str, str] = {}  # neutral name → key on this wire, where it differs from the dialect's own
    unsupported: frozenset[str] = frozenset()  # the provider answers 4xx to these: dropped, with a warning
    unsupported_when_reasoning: frozenset[str] = frozenset()  # dropped while the model reasons
    clamps: Mapping[str, tuple[float, float]] = {}  # numbers outside are moved to the edge, with a warning
    values: Mapping[str, Mapping[str, str]] = {}  # neutral name → {value: value on this wire}, for string values
    message_fields_dropped: frozenset[str] = frozenset()  # keys of a message that the provider refuses
    effort: tuple[str, ...] | None = None  # reasoning_effort values it takes, weakest first; None: passes any; (): takes none
    effort_default: str = "medium"  # what it does when nothing is asked ("none": does not reason unless asked)
    thinking: str = ""  # how reasoning is switched: "" (by effort) | "toggle" (thinking.type) | "budget" (thinking.budget_tokens) | "adaptive" | "both" (effort or budget)
    takes_schema: bool = True  # its answers can be bound to a JSON schema; else it is told the schema in words
    needs_data: frozenset[str] = frozenset()  # kinds of media (image, document) it takes as data, not by URL
    needs_signatures: bool = False  # refuses earlier tool calls without the signature of the thought behind them
    forces_tools: bool = True  # takes a tool_choice that forces a call
    history_reasoning: str = "keep"  # earlier turns' reasoning_content: keep | drop | reasoning (send under that key) | parts
    schema_keys_dropped: frozenset[str] = frozenset()  # keys cut from JSON schemas (top level)
    extra: Mapping[str, object] = {}  # keys always sent, unless the caller set them
    responses: str = ""  # the Responses format is needed: only (it has no other) | tools (whenever it reasons and has tools)
    counts_bare: bool = False  # its token count takes the request as it is, not wrapped (Gemini's format)
    # reply
    reasoning_field: str = "reasoning_content"  # reasoning_content | reasoning | parts (content array) | think_tags | none
    mints_tool_ids: bool = False  # tool calls may come with id "": we make one
    drops: frozenset[str] = frozenset()  # padding keys cut from replies and chunks (obfuscation, p)
    # usage
    stream_usage: str = "ask"  # ask (send stream_options.include_usage) | unasked (it always reports; the field is refused)
    reasoning_tokens: str = "inside"  # inside | outside (add them to output) | hidden (total − prompt is the truth)
    # money
    on_cancel: str = "unknown"  # stops | bills_all | unknown
    tokenizer: str = ""  # "" → estimated; o200k | cl100k | words (the sim's): counted


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """One upstream service. `dialects` maps endpoint (chat, responses, embeddings, …) to wire format; `base_url` has no trailing slash."""

    name: str  # slug prefix
    base_url: str
    aliases: tuple[str, ...] = ()
    dialects: Mapping[str, str] = msgspec.field(default_factory=lambda: {"chat": "openai-chat"})
    # endpoint → path after base_url, where it departs from the dialect's; `stream`, `count_tokens`: where those have their own
    paths: Mapping[str, str] = {}
    families: tuple[tuple[str, Mapping[str, object]], ...] = ()  # (glob over upstream names, fields of this row that are others for them)
    batches: str = ""  # batch dialect (aigate/batchdialects) of its own batches, where the operator wants them used
    jobs: str = ""  # job dialect (aigate/jobdialects) of its videos, music and 3D models; "" = it makes none
    jobs_base_url: str = ""  # where that one differs from base_url
    idempotency_header: str = ""  # under which it takes a key for a job: the same key never makes a second one
    # bearer | header:<name> | scheme:<word> (Authorization: <word> KEY) | google-token (a bearer token of Google's, got for the credential) | none
    auth: str = "bearer"
    key_variable: str = ""  # environment variable that makes it live
    url_variable: str = ""  # environment variable with the address of the customer's own resource, where the row has no base URL
    url_path: str = ""  # of the base URL, behind that address
    kin: str = ""  # provider whose models it serves under the same names at the same prices
    credential: str = ""  # resolved at start; never printed, never pushed to the database
    credential_id: str = ""  # names a caller's own key, where `credential` is one; "" = the operator's
    headers: Mapping[str, str] = {}  # sent with each request
    models: tuple[str, ...] = ("*",)  # globs of upstream names that pass
    unpriced: str = "refuse"  # allow | refuse a model without a price
    sends_attempt_id: bool = False  # adds x-aig-attempt (the sim, and operators' own servers)
    quirks: tuple[tuple[str, Quirks], ...] = ()  # (glob over upstream names, quirks); first match wins
    doc: str = ""  # page and date the row was read from
    timeout_s: float = 600.0  # silence allowed on one attempt

    def __repr__(self) -> str:  # a credential must not reach a log through a repr
        return f"Provider({self.name!r}, {self.base_url!r})"


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs: per usage class, (picodollars, per this many units). `tiers`: (input tokens above, Price), rising;
    the whole call is priced by the tier it reaches. `id` is the hash of the content (core/price.py)."""

    id: str = ""
    rates: Mapping[str, tuple[int, int]] = {}  # input, cached_input, cache_write, output, audio_input, audio_output, request; of jobs: second, item, …
    tiers: tuple[tuple[int, Price], ...] = ()
    variants: Mapping[str, Price] = {}  # name → the whole price there, for calls of the gateway's own; each has its own id
    services: Mapping[str, Price] = {}  # service_tier → the whole price there, where it differs; each has its own id
    source: str = ""  # genai-prices <version> | config | sim


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one model: limits, modality, capabilities, price. Unknown numbers are 0."""

    slug: str  # provider/upstream-name
    modality: str = "text"  # text, image, video, music, 3d, audio-stt, audio-tts, embedding, rerank, moderation
    context_window: int = 0
    max_output_tokens: int = 0
    capabilities: tuple[str, ...] = ()  # the contract's vocabulary: tools, streaming, vision, json, caching, reasoning, …
    is_reasoning: bool = False
    price: Price | None = None
    fallbacks: tuple[str, ...] = ()  # sibling slugs that may answer when this one fails
    description: str = ""
    created: int = 0
    job: JobLimits | None = None  # of a model whose calls are jobs


class Target(msgspec.Struct, frozen=True):
    """Where one attempt goes: a provider, the name the model has there, and the facts that apply."""

    slug: str
    provider: Provider
    upstream_model: str
    model: Model
    quirks: Quirks
    dialect: str  # wire format for this endpoint
    url_path: str  # path on the origin, model name percent-encoded where it appears
    endpoint: str  # chat | embeddings | …
    stream_url_path: str = ""  # where streams are asked for, if not on url_path
    count_url_path: str = ""  # where tokens are counted, if not where the dialect says
    names_model: bool = True  # in its bodies; else the path alone does
