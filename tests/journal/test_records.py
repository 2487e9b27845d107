from __future__ import annotations

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aigate.journal.records import (
    MAX_LEASES,
    CallEnd,
    Intent,
    Leases,
    Settled,
    decode_call_end,
    decode_intent,
    decode_leases,
    decode_settled,
    encode_record,
    fit_call_end,
    fit_settled,
)
from aigate.journal.segment import MAX_BODY_BYTES

LIMIT_BYTES = 4079
TEXTS = ("surface", "endpoint", "asked_model", "served_by", "account_id", "key_id", "error_code", "warnings")


def call_end(**fields: object) -> CallEnd:
    values = dict.fromkeys(CallEnd.__struct_fields__, 0) | dict.fromkeys(TEXTS, "") | {"call_id": "req_1", "is_stream": False}
    return CallEnd(**(values | dict.fromkeys(("sub_account_id", "tag", "client_request_id")) | fields))  # type: ignore[arg-type]


def settled(raw_usage: bytes, call: CallEnd | None) -> Settled:
    return Settled("att_1", "complete", "reported", 10, 20, 3, 0, 1, 0, 0, 12345, "prc_1", 200, "", 9, 4, raw_usage, call)


def test_a_record_of_an_older_release_reads_with_the_defaults_of_newer_fields() -> None:
    old = ["att_1", "req_1", 1, 5, "sim", "sim/echo", 9, "prc_1", "acc_default", "key_1", None, None]
    intent = decode_intent(msgspec.msgpack.encode(old))
    assert (intent.attempt_id, intent.hold_nanousd, intent.leases, intent.window) == ("att_1", 9, (), "")


def test_a_record_of_a_newer_release_reads_without_its_newer_fields() -> None:
    intent = Intent("att_1", "req_1", 1, 5, "sim", "sim/echo", 9, "prc_1", "acc_default", "key_1", None, None)
    newer = [*msgspec.to_builtins(intent), "a field to come"]
    assert decode_intent(msgspec.msgpack.encode(newer)) == intent


def test_a_settled_record_of_an_older_release_charges_no_lease() -> None:
    whole = settled(b"{}", None)
    assert decode_settled(msgspec.msgpack.encode(msgspec.structs.astuple(whole)[:-1])) == whole


def test_the_most_leases_allowed_fit_a_record() -> None:
    largest = Leases(((2**63 - 1, "2026-12", 2**63 - 1),) * MAX_LEASES)
    body = encode_record(largest)
    assert len(body) <= MAX_BODY_BYTES and decode_leases(body) == largest


def test_too_large_a_settled_record_loses_raw_usage_and_warnings_before_anything_else() -> None:
    whole = settled(b"x" * 5000, call_end(warnings="w" * 300, tag="checkout"))
    fitted = decode_settled(fit_settled(encode_record(whole), LIMIT_BYTES))
    assert fitted.raw_usage == b"" and fitted.call is not None and fitted.call.warnings == ""
    assert fitted.call.tag == "checkout"
    assert fitted == msgspec.structs.replace(whole, raw_usage=b"", call=msgspec.structs.replace(whole.call, warnings=""))


@example("\U0001f600" * 300, "\U0001f600" * 300, b"")
@given(st.text(max_size=3000), st.text(max_size=3000), st.binary(max_size=6000))
def test_a_settled_record_always_fits_and_never_loses_a_number(tag: str, asked: str, raw_usage: bytes) -> None:
    whole = settled(raw_usage, call_end(**dict.fromkeys((*TEXTS, "client_request_id"), asked) | {"tag": tag, "cost_nanousd": 12345}))
    whole = msgspec.structs.replace(whole, end=asked, error_kind=tag, charges=((2**63 - 1, "2026-12", 2**63 - 1),) * 5)
    body = fit_settled(encode_record(whole), LIMIT_BYTES)
    fitted = decode_settled(body)
    assert len(body) <= LIMIT_BYTES
    for name in Settled.__struct_fields__:
        if isinstance(getattr(whole, name), int):
            assert getattr(fitted, name) == getattr(whole, name)
    assert fitted.call is not None and fitted.call.cost_nanousd == 12345 and fitted.charges == whole.charges


@pytest.mark.parametrize("name", ["asked_model", "tag", "warnings", "client_request_id"])
def test_too_large_a_call_end_is_cut_to_fit(name: str) -> None:
    body = fit_call_end(encode_record(call_end(**{name: "x" * 100_000})), 60_000)
    assert len(body) <= 60_000
    assert decode_call_end(body).call_id == "req_1"
