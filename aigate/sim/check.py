"""How strictly the simulated provider reads a request: fields of objects and their types, by the vendors' documents. Pure.

It shares nothing with the gateway's own readers: what checks a translation must not know how it was made.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

TEXT, WHOLE, NUMBER, FLAG, LIST, OBJECT, ANY = (str,), (int,), (int, float), (bool,), (list,), (dict,), (object,)
Fields = Mapping[str, tuple[type, ...]]

_MAX_SIGNATURE_CHARS = 88


class Invalid(Exception):
    """The request breaks a rule of its format: what is wrong, and the field's path."""

    def __init__(self, message: str, param: str = "", status: int = 400, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param
        self.status = status


def need(is_so: object, message: str, path: str = "") -> None:
    if not is_so:
        raise Invalid(f"{path}: {message}" if path else message, path)


def body_of(data: bytes) -> dict[str, Any]:
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Invalid(f"The request body is not valid JSON: {error}") from None
    need(type(body) is dict, "The request body must be a JSON object.")
    return body


def check(value: object, path: str, known: Fields, required: Sequence[str] = ()) -> dict[str, Any]:
    """`value` as an object whose fields are all known and of their types. None is no value of a field unless ANY is."""
    need(type(value) is dict, "must be an object", path)
    fields: dict[str, Any] = value  # type: ignore[assignment]
    lead = f"{path}." if path else ""
    for key, inner in fields.items():
        need(key in known, "unknown field: extra inputs are not permitted", lead + key)
        kinds = known[key]
        is_wrong_flag = isinstance(inner, bool) and bool not in kinds and object not in kinds
        need(isinstance(inner, kinds) and not is_wrong_flag, f"must be of type {'|'.join(kind.__name__ for kind in kinds)}", lead + key)
    for key in required:
        need(key in fields, "field required", lead + key)
    return fields


def one_of(value: object, allowed: Sequence[object], path: str) -> None:
    need(value in allowed, f"must be one of {', '.join(map(str, allowed))}, not {value!r}", path)


def check_base64(data: str, path: str) -> int:
    """How many bytes it stands for."""
    try:
        return len(base64.b64decode(data, validate=True))
    except (binascii.Error, ValueError):
        raise Invalid(f"{path}: invalid base64 data", path) from None


def data_url(media_type: str, data: str) -> str:
    return f"data:{media_type};base64,{data}"


def check_schema(schema: object, path: str) -> None:
    """A JSON schema of an object, as tools take it."""
    need(type(schema) is dict and schema.get("type") == "object", 'a schema must have type "object"', path)  # type: ignore[attr-defined]


def check_closed(schema: object, path: str, *, all_required: bool) -> None:
    """What strict output insists on: objects that admit no other property; `all_required`: and list all as required."""
    if type(schema) is list:
        for place, entry in enumerate(schema):
            check_closed(entry, f"{path}[{place}]", all_required=all_required)
    if type(schema) is not dict:
        return
    if schema.get("type") == "object" or "properties" in schema:
        need(schema.get("additionalProperties") is False, "'additionalProperties' is required to be supplied and to be false", path)
        properties = schema.get("properties") or {}
        need(not all_required or sorted(schema.get("required", ())) == sorted(properties), "'required' must list every property", path)
    for key in ("properties", "$defs", "definitions"):
        for name, inner in (schema.get(key) or {}).items():
            check_closed(inner, f"{path}.{key}.{name}", all_required=all_required)
    for key in ("items", "anyOf", "allOf"):
        check_closed(schema.get(key), f"{path}.{key}", all_required=all_required)


def same_base64(one: str) -> str:
    """Base64 in its plain alphabet: some SDKs write the one for URLs."""
    return one.replace("-", "+").replace("_", "/")


def sign(vendor: str, said: str) -> str:
    """The proof that this provider gave for something it thought: nothing else passes `is_signed`."""
    return base64.b64encode(blake2b(f"{vendor}\0{said}".encode(errors="replace"), digest_size=48).digest()).decode()[:_MAX_SIGNATURE_CHARS]


def is_signed(vendor: str, said: str, proof: object) -> bool:
    return isinstance(proof, str) and same_base64(proof) == sign(vendor, said)
