"""Messages between a worker and the keeper, version 1 (docs/formats.md). Owns their shapes and framing; does no I/O.

A frame is a 4-byte big-endian length and a msgpack body (a tagged Struct). The worker opens one connection to
`run/keeper.sock` and speaks first (Hello). Every `Push` is answered by an `Ack` of the same number once it is in force.
"""

from __future__ import annotations

import struct

import msgspec

from aigate.core.budget import Lease, Limit, Want
from aigate.core.call import Principal
from aigate.core.rate import Rate, Share
from aigate.core.rate import Want as RateWant

VERSION = 1
MAX_FRAME_BYTES = 16 << 20


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """A worker says who it is. `version` lets the keeper refuse what it does not speak."""

    worker: str
    pid: int
    journal_id: str
    version: int = VERSION
    grant_seq: int = 0  # of the newest grant it has received
    limits_version: int = 0  # of the newest Limits it has acknowledged; 0 = new, holds nothing; -1 = has restated, needs every limit


class LookUp(msgspec.Struct, tag="look_up", frozen=True):
    """Who owns the key with this digest? Answered by Found with the same number."""

    number: int
    digest: bytes


class Found(msgspec.Struct, tag="found", frozen=True):
    number: int
    principal: Principal | None


class Push(msgspec.Struct, tag="push", frozen=True):
    """Key changes, in force when acknowledged: each digest now belongs to the principal (None: revoked or unknown).
    `is_reset` : forget every other cached key. `provider_keys`: ids of stored ones (pk_…) to forget."""

    number: int
    keys: tuple[tuple[bytes, Principal | None], ...] = ()
    is_reset: bool = False
    provider_keys: tuple[str, ...] = ()


class Ack(msgspec.Struct, tag="ack", frozen=True):
    number: int


class Health(msgspec.Struct, tag="health", frozen=True):
    """Worker → keeper, every few seconds: counters for /metrics and breaker states for /v1/health/providers.

    Counters are named `name` or `name;label=value;label=value`; a name that ends in `_total` only ever rises in one process."""

    worker: str
    counters: dict[str, float]
    targets: dict[str, dict[str, object]]  # slug → {state, failures, …}


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Keeper → worker: an authority is there; holds max_staleness_s off."""


# --- money: how they are used is written in core/budget.py and core/wallet.py -------------------------------------------------


class Welcome(msgspec.Struct, tag="welcome", frozen=True):
    """Answer to Hello: the journal is shipped up to it and Grants may be asked; unanswered ones are asked again now.
    `is_restored`: the database is older than the worker's leases. The worker restates them in its journal, then says Hello anew."""

    is_restored: bool = False


class Grant(msgspec.Struct, tag="grant", frozen=True):
    """Worker → keeper: lease for all wants or none. Answered by Granted or Refused of the same number; a repeat gets the first answer.
    `answered`: every number up to it has been answered, so those answers need not be kept. `seq`: of the newest grant received."""

    number: int
    wants: tuple[Want, ...]
    seq: int = 0
    answered: int = 0


class Granted(msgspec.Struct, tag="granted", frozen=True):
    """`seq` is the grant's number in the database: it rises with every grant to anybody. `tight`: budgets near their end."""

    number: int
    seq: int
    leases: tuple[Lease, ...]
    tight: tuple[int, ...] = ()


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """`reason` over: it does not fit even if all leases came back unused | leased: others' running calls are in the way |
    unavailable: the ledger cannot say (503, never 402). `available`: what may fit at most, for clamping; always below the need."""

    number: int
    reason: str
    budget_id: int = 0
    scope: str = ""
    limit: int = 0
    spent: int = 0
    reserved: int = 0
    leased: int = 0
    available: int = 0
    resets_at: float | None = None  # unix seconds
    retry_after_s: float | None = None


class Recall(msgspec.Struct, tag="recall", frozen=True):
    """Keeper → worker: give back what is unused of these budgets, and of all leases in months before `before`.
    Acknowledged once the RETURNED record is in the journal; the keeper then ships that journal."""

    number: int
    budget_ids: tuple[int, ...] = ()
    before: str = ""


class Limits(msgspec.Struct, tag="limits", frozen=True):
    """Changed limits, in force when acknowledged: unused slices went back, open holds were adopted, both are in the journal.
    `version` is the newest among them; 0 = it does not count (a first part of several). `is_reset`: every other limit is forgotten."""

    number: int
    version: int
    changes: tuple[Limit, ...]
    is_reset: bool = False


# --- rate limits: core/rate.py ------------------------------------------------------------------------------------------------


class Permits(msgspec.Struct, tag="permits", frozen=True):
    """Worker → keeper: permits for a call, or ahead of calls. Answered by Permitted of the same number, a Share for each want."""

    number: int
    wants: tuple[RateWant, ...]


class Permitted(msgspec.Struct, tag="permitted", frozen=True):
    number: int
    shares: tuple[Share, ...]


class GiveBack(msgspec.Struct, tag="give_back", frozen=True):
    """Worker → keeper: permits that were not used; negative: tokens used beyond what was taken."""

    permits: tuple[tuple[Rate, int], ...]


class InUse(msgspec.Struct, tag="in_use", frozen=True):
    """Worker → keeper, first of all on a new connection: streams that run, and limits it took permits of lately."""

    permits: tuple[tuple[Rate, int], ...]


# --- callers' own provider keys ----------------------------------------------------------------------------------------------


class OpenKey(msgspec.Struct, tag="open_key", frozen=True):
    """Worker → keeper: the stored provider key of this id, of this caller. Answered by OpenedKey with the same number."""

    number: int
    account_id: str
    sub_account_id: str | None
    key_id: str  # pk_…


class OpenedKey(msgspec.Struct, tag="opened_key", frozen=True):
    """`key` "": there is none in force, or it is not the caller's. `origin`: the only place where it may be sent."""

    number: int
    provider: str = ""
    origin: str = ""
    key: str = ""

    def __repr__(self) -> str:  # a credential must not reach a log through a repr
        return f"OpenedKey({self.number}, {self.provider!r})"


# --- finished responses -------------------------------------------------------------------------------------------------------

MAX_KEPT_BYTES = 15 << 20  # of a kept turn, and of a conversation: they travel in one frame


class KeepResponse(msgspec.Struct, tag="keep_response", frozen=True):
    """Worker → keeper: a response that has been sent to its caller. Answered by KeptResponse of the same number; a repeat changes nothing."""

    number: int
    account_id: str
    owner_id: str  # core/account.py tenant_of
    previous_id: str | None
    input: bytes  # JSON, as the caller sent it
    sent: bytes  # the reply's body, or the last events of its stream
    is_end: bool = False  # of a background response: it takes the place of the one begun, if that still runs


class KeptResponse(msgspec.Struct, tag="kept_response", frozen=True):
    number: int


class FindResponse(msgspec.Struct, tag="find_response", frozen=True):
    """Worker → keeper: the conversation up to this response. Answered by FoundResponse of the same number."""

    number: int
    account_id: str
    owner_id: str
    response_id: str


class FoundResponse(msgspec.Struct, tag="found_response", frozen=True):
    """`items`: JSON array of everything said, oldest first. None: `missing_id` is not kept here; "" = it is longer than MAX_KEPT_BYTES."""

    number: int
    items: bytes | None
    missing_id: str = ""
    is_running: bool = False  # in the background: nobody can go on from it yet


class CancelResponse(msgspec.Struct, tag="cancel_response", frozen=True):
    """Keeper → every worker: this background response is not wanted any more."""

    account_id: str
    owner_id: str
    response_id: str


# --- evals that answer as models ------------------------------------------------------------------------------------------------


class FindEval(msgspec.Struct, tag="find_eval", frozen=True):
    """Worker → keeper: which model won this eval? Answered by FoundEval of the same number."""

    number: int
    account_id: str
    owner_id: str  # core/account.py tenant_of
    eval_id: str


class FoundEval(msgspec.Struct, tag="found_eval", frozen=True):
    """`status` "": there is none that this caller may use, else as core/evals.py. A completed eval's winner never changes."""

    number: int
    status: str = ""
    winner: str = ""
    error: str = ""


Message = (
    Hello | LookUp | Found | Push | Ack | Health | Ping | Welcome | Grant | Granted | Refused | Recall | Limits
    | Permits | Permitted | GiveBack | InUse | OpenKey | OpenedKey
    | KeepResponse | KeptResponse | FindResponse | FoundResponse | CancelResponse
    | FindEval | FoundEval
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode_frame(message: Message) -> bytes:
    body = _encoder.encode(message)
    return struct.pack(">I", len(body)) + body


def decode_frames(buffer: bytearray) -> list[Message]:
    """Takes every whole frame off the front of `buffer`. Raises ValueError for an oversized or unreadable frame."""
    messages: list[Message] = []
    at = 0
    while len(buffer) - at >= 4:
        (size,) = struct.unpack_from(">I", buffer, at)
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"frame of {size} bytes, at most {MAX_FRAME_BYTES} allowed")
        if len(buffer) - at - 4 < size:
            break
        messages.append(_decoder.decode(bytes(buffer[at + 4 : at + 4 + size])))
        at += 4 + size
    del buffer[:at]
    return messages
