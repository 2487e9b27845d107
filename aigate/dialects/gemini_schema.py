"""JSON schemas on Gemini: its own OpenAPI subset → plain JSON Schema, and the few words that it does not know → what means the same. Pure."""

from __future__ import annotations

from typing import Any

_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_MAPS = ("properties", "$defs", "definitions", "patternProperties")
_COUNTS = ("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties")  # strings on this wire: they are int64
_NOT_JSON_SCHEMA = ("propertyOrdering", "example")


def _walk(schema: dict[str, Any], change: Any) -> dict[str, Any]:
    """`change` applied to every schema inside `schema`, and to a copy of it."""
    fields = dict(schema)
    for key in _LISTS:
        if type(fields.get(key)) is list:
            fields[key] = [change(entry) for entry in fields[key]]
    for key in _MAPS:
        if type(fields.get(key)) is dict:
            fields[key] = {name: change(entry) for name, entry in fields[key].items()}
    for key in ("items", "additionalProperties", "not"):
        if type(fields.get(key)) is dict:
            fields[key] = change(fields[key])
    return fields


def to_json_schema(schema: Any) -> Any:
    """`{"type": "STRING", "nullable": true}` → `{"type": ["string", "null"]}`. A schema that is plain already stays as it is."""
    if type(schema) is not dict:
        return schema
    fields = _walk({_PLAIN.get(key, key): value for key, value in schema.items()}, to_json_schema)
    for key in _NOT_JSON_SCHEMA:
        fields.pop(key, None)
    for key in _COUNTS:
        if isinstance(fields.get(key), str) and fields[key].isdecimal():
            fields[key] = int(fields[key])
    kind = fields.get("type")
    if isinstance(kind, str):
        fields["type"] = kind.lower()
        if kind == "TYPE_UNSPECIFIED":
            del fields["type"]
    if fields.get("nullable") is True:
        if isinstance(fields.get("type"), str):
            fields["type"] = [fields["type"], "null"]
        elif type(fields.get("anyOf")) is list:
            fields["anyOf"].append({"type": "null"})
    fields.pop("nullable", None)
    if fields.get("format") == "enum":
        del fields["format"]
    return fields


_PLAIN = {"any_of": "anyOf", "min_items": "minItems", "max_items": "maxItems", "min_length": "minLength", "max_length": "maxLength",
          "property_ordering": "propertyOrdering", "additional_properties": "additionalProperties", "prefix_items": "prefixItems"}  # fmt: skip


def lowered(schema: Any) -> Any:
    """A schema of another format as this one takes it: `const` is an `enum` of one, and what names the draft says nothing here."""
    if type(schema) is not dict:
        return schema
    fields = _walk(schema, lowered)
    fields.pop("$schema", None)
    if "const" in fields:
        fields.setdefault("enum", [fields.pop("const")])
        fields.pop("const", None)
    return fields
