"""Which lines a provider's own batch endpoint can take, and what is sent there of each. No I/O.

Only what needs no help of a worker: the same format on both sides, one choice, nothing to fetch, to keep or to go on from. Every other
line goes the usual way, where all of that works and what is wrong is told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from aigate.batchdialects import BATCH_DIALECTS, BatchDialect
from aigate.core.allow import check_allowed
from aigate.core.bounds import hold_nanousd, input_bound, max_output_tokens, output_bound
from aigate.core.call import Principal
from aigate.core.edits import plan_edits, set_max_output_tokens
from aigate.core.params import MAX_OUTPUT_TOKENS
from aigate.core.price import variant_price
from aigate.core.target import NATIVE_BATCH, Price, Target
from aigate.core.warnings import warning_header
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Dialect
from aigate.dialects.fetchable import may_name_urls
from aigate.errors import ClientError

SURFACES = {  # endpoint of a batch → (format of its lines, endpoint of the catalogue)
    "/v1/chat/completions": ("openai-chat", "chat"),
    "/v1/responses": ("openai-responses", "responses"),
    "/v1/messages": ("anthropic-messages", "chat"),
    "/v1/embeddings": ("openai-embeddings", "embeddings"),
}

Resolve = Callable[[str, str], Target]


class NativeLine(msgspec.Struct, frozen=True, kw_only=True):
    target: Target
    asked: str
    body: bytes  # as the provider gets it
    hold_nanousd: int
    warnings: str


class _Head(NamedTuple):
    path: str
    query: str
    headers: dict[bytes, bytes]


def surface_of(endpoint: str) -> tuple[Dialect, str] | None:
    """None: no provider has such a format."""
    found = SURFACES.get(endpoint)
    return None if found is None else (DIALECTS[found[0]], found[1])


def dialect_of(target: Target) -> BatchDialect | None:
    """None: its provider has no batches of its own, or the operator wants none."""
    return BATCH_DIALECTS.get(target.provider.batches)


def price_of(target: Target) -> Price | None:
    return None if target.model.price is None else variant_price(target.model.price, NATIVE_BATCH)


def plan_line(body: bytes, endpoint: str, principal: Principal, resolve: Resolve, default_max_output_tokens: int) -> NativeLine | None:
    """None: it goes the usual way."""
    found = surface_of(endpoint)
    if found is None:
        return None
    surface, kind = found
    try:
        call = surface.read_call(body, kind, _Head(endpoint, "", {}))
        if len(call.models) != 1 or call.n != 1 or call.holds_proofs or call.is_kept or call.previous_response or "service_tier" in call.pairs:
            return None
        target = resolve(call.models[0], kind)
        check_allowed(principal, target.slug)
    except ClientError:
        return None
    api = dialect_of(target)
    if api is None or target.dialect != surface.name or target.dialect not in api.formats or (kind == "chat" and target.quirks.responses):
        return None
    if target.quirks.needs_data and may_name_urls(call):
        return None
    plan = plan_edits(call, target, surface.params)
    edits = plan.edits
    if kind != "embeddings" and MAX_OUTPUT_TOKENS not in target.quirks.unsupported:
        edits = (*edits, set_max_output_tokens(max_output_tokens(call, target, default_max_output_tokens), target))  # the hold is for no more
    return NativeLine(
        target=target,
        asked=call.models[0],
        body=surface.edit_pairs(call, edits, target),
        hold_nanousd=hold_nanousd(price_of(target), input_bound(call, target), output_bound(call, target, default_max_output_tokens)),
        warnings=warning_header(plan.warnings) if plan.warnings else "",
    )
