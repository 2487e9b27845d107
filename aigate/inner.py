"""The inner lane: how the keeper makes model calls through the node's own workers. Owns what both ends must agree on; does no I/O.

Each worker listens on `run/inner-<slot>.sock` too, for calls that carry the inner secret and an `InnerCall`: for whom, under which id, how.
On the public port these headers mean nothing.
"""

from __future__ import annotations

import base64
import hmac
import os
import re
import zlib

import msgspec

from aigate.core.call import Principal

HEADER = b"x-aig-inner"  # InnerCall, msgpack in base64
SECRET_HEADER = b"x-aig-inner-secret"
COST_HEADER = b"x-aig-cost-nanousd"  # exact, on every plain reply of the inner lane
NOT_BEGUN, ALREADY_SENT = "not_begun", "already_sent"  # codes of a worker's refusals
STATE_PATH = "/inner/calls/"  # + call id: InnerState as JSON

_CALL_ID = re.compile(r"req_[0-9a-z]{16,64}\Z")


class InnerCall(msgspec.Struct, array_like=True, frozen=True):
    """`epoch` grows from one keeper process to the next of a machine's run: what an earlier one sent is not begun any more once a worker
    has heard of a later one."""

    call_id: str  # req_…, chosen by the keeper
    epoch: int
    principal: Principal
    price_variant: str = ""  # core/target.py Price.variants
    must_archive: bool = False  # whatever the settings say


class InnerState(msgspec.Struct, frozen=True):
    """What a worker says of one call id. No call of that id, sent in an earlier epoch, begins after this was said."""

    journal_id: str
    is_running: bool


def inner_secret(key_secret: bytes) -> str:
    return hmac.digest(key_secret, b"aigate inner lane", "sha256").hex()


def socket_path(run_dir: str, slot: int) -> str:
    return os.path.join(run_dir, f"inner-{slot}.sock")


def slot_of_worker(name: str) -> int:
    """worker-2.7 → 2: its place in the tree, held by one process after another, never by two."""
    return int(name.partition(".")[0].rpartition("-")[2])


def slot_of_call(call_id: str, workers: int) -> int:
    """Always the same one, whichever workers are up."""
    return zlib.crc32(call_id.encode()) % workers + 1


def is_call_id(call_id: str) -> bool:
    return _CALL_ID.match(call_id) is not None


def encode_call(call: InnerCall) -> bytes:
    return base64.b64encode(msgspec.msgpack.encode(call))


def decode_call(value: bytes) -> InnerCall:
    """ValueError for what is none."""
    return _decode(base64.b64decode(value, validate=True))


_decode = msgspec.msgpack.Decoder(InnerCall).decode
