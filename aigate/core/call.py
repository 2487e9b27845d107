"""The nouns of one client request: Principal, Call, Attempt, Outcome, Warning. Values only; no behaviour, no I/O."""

from __future__ import annotations

import msgspec
from msgspec import Raw

from aigate.core.rate import Rate
from aigate.core.usage import NONE, NOTHING, Usage
from aigate.core.wallet import Hold


class Principal(msgspec.Struct, frozen=True):
    """Who is calling, as a worker knows it from memory."""

    key_id: str
    account_id: str = "acc_default"
    sub_account_id: str | None = None
    default_tag: str | None = None
    is_admin: bool = False  # may use the control plane
    allowed_models: tuple[str, ...] = ()  # globs over slugs; () = all
    expires_at: float | None = None  # unix seconds
    budgets: tuple[int, ...] = ()  # ids of those with a limit, in the order account, sub-account, key
    rates: tuple[Rate, ...] = ()  # limits of the key, its sub-account and its account
    archive_days: int | None = None  # how long bodies of its calls are kept; None = as the operator has it


class Call(msgspec.Struct):
    """One client request after `parse`: its top-level pairs, untouched, and the few fields we act on, typed.

    `read_call` of the surface's dialect fills it; nothing later changes `pairs` (each attempt starts from them again).
    """

    surface: str  # dialect the client speaks
    endpoint: str  # chat | responses | messages | embeddings | …
    pairs: dict[str, Raw]
    body_bytes: int
    models: tuple[str, ...]  # as asked, in order; () = omitted
    is_stream: bool = False
    is_array: bool = False  # its stream is one JSON array rather than events (Gemini without alt=sse)
    include_usage: bool | None = None  # stream_options.include_usage; None = not said
    max_output_tokens: int | None = None
    n: int = 1
    effort: str | None = None  # reasoning_effort as asked
    thinking_budget: int | None = None  # thinking.budget_tokens as asked; 0 = disabled
    allows_fallback: bool = True
    fallbacks: tuple[str, ...] = ()
    forward_headers: tuple[tuple[bytes, bytes], ...] = ()  # sent on where the target speaks the surface's dialect
    holds_proofs: bool = False  # its messages carry sealed proofs of several dialects (dialects/proof.py): only the neutral form sorts them
    previous_response: str = ""  # id of the response that it goes on from
    is_kept: bool = False  # its response is to be kept, so that another call can go on from it
    price_variant: str = ""  # which of its prices' variants is charged; said by the gateway itself only
    received_at: int = 0  # unix seconds: `created` of a reply whose provider gives none


class Warning(msgspec.Struct, frozen=True):
    """One change we made to what was asked: `kind` dropped | clamped | rerouted | moved | emulated, `param` as the caller spelt it."""

    kind: str
    param: str
    reason: str
    before: int | float | str | None = None
    after: int | float | str | None = None


class Outcome(msgspec.Struct, kw_only=True):
    """How one attempt ended: what `plan.after` decides by and `settle` writes down."""

    end: str  # complete | aborted | failed
    status: int = 0  # provider's HTTP status, 0 = none came
    error_kind: str = ""  # ProviderError.kind
    usage: Usage = NOTHING
    usage_source: str = NONE
    raw_usage: bytes = b""  # the provider's own usage object, as JSON
    cost_nanousd: int = 0  # what that usage costs
    retry_after_s: float | None = None


class Attempt(msgspec.Struct):
    """One dispatch to one provider: the unit of money."""

    id: str  # att_…
    call_id: str  # req_…
    number: int  # 1 = first of the call
    hold_nanousd: int
    price_id: str
    started_at: float  # unix seconds
    first_byte_ms: int = -1
    window: str = ""  # the month that it counts in, from its intent on
    hold: Hold | None = None  # the money set aside, where a budget is on its path
