"""JSON schemas that bind an answer of Anthropic Messages: it takes closed objects and few keywords. Pure.

What is lowered admits less or says it in words, so an answer that it binds is one that the caller's schema takes, but for the words
(platform.claude.com/docs/en/build-with-claude/structured-outputs; the vendor's own SDK does the same, read 2026-11).
"""

from __future__ import annotations

from typing import Any

_PLAIN = ("type", "title", "description", "enum", "const", "default", "$ref", "required")
_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"})
_MAPS = ("properties", "$defs", "definitions")
_LISTS = ("anyOf", "oneOf", "allOf")  # one of several is said as any of them


def lowered(schema: Any) -> tuple[Any, list[str]]:
    """(the schema as it is taken, the keywords that are now words of a description)."""
    if type(schema) is not dict:
        return schema, []
    fields = {key: schema[key] for key in _PLAIN if key in schema}
    told: dict[str, Any] = {}
    lost: list[str] = []

    def inner(value: Any) -> Any:
        taken, more = lowered(value)
        lost.extend(more)
        return taken

    for key, value in schema.items():
        if key in _MAPS and type(value) is dict:
            fields[key] = {name: inner(entry) for name, entry in value.items()}
        elif key in _LISTS and type(value) is list:
            fields["anyOf" if key == "oneOf" else key] = [inner(entry) for entry in value]
        elif key == "items":
            fields[key] = inner(value)
        elif (key == "format" and value in _FORMATS) or (key == "minItems" and value in (0, 1)):
            fields[key] = value
        elif key not in _PLAIN and key not in ("$schema", "$id", "additionalProperties"):
            told[key] = value
    if schema.get("type") == "object" or "properties" in schema:
        fields["additionalProperties"] = False
        more = schema.get("additionalProperties", True)
        if type(more) is dict or (more is True and not schema.get("properties")):  # of a free object nothing else would be left to say
            told["additionalProperties"] = more
    if told:
        words = ", ".join(f"{key}: {value}" for key, value in told.items())
        given = fields.get("description")
        fields["description"] = f"{given}\n\n{{{words}}}" if isinstance(given, str) else f"{{{words}}}"
    return fields, [*told, *lost]
