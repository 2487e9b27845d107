"""The neutral form: what a request, a reply and a chunk mean, in no provider's words. Pure structures.

Rich enough that read∘write of one dialect loses no meaning. What a dialect has and this form does not name travels in bags: {wire key:
JSON value}, written back only by the dialect that filled them (`leave_home` empties them before another writes). Absent is `None` (or an
empty list), an explicit null of the wire is kept in the bag as `None`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.usage import Usage

Bag = dict[str, Any]  # wire key → JSON value, decoded or Raw


# --- parts of a message -------------------------------------------------------------------------------------------------


class Citation(msgspec.Struct):
    """Where a text comes from. `start`, `end`: characters of that text it supports, where they are known."""

    kind: str  # url | document
    url: str | None = None
    title: str | None = None
    cited_text: str | None = None
    start: int | None = None
    end: int | None = None
    bag: Bag = {}


# `cache` of a part or tool: what comes up to here is worth caching, for this long ("5m"; "" = as long as the provider likes).


class Text(msgspec.Struct, tag="text"):
    text: str
    bag: Bag = {}
    citations: list[Citation] = []
    cache: str | None = None


class Media(msgspec.Struct, tag="media"):
    """An image, audio, video or document: exactly one of `url`, `data` (base64, never decoded by us) or `file_id`."""

    kind: str  # image | audio | video | document
    url: str | None = None
    data: str | None = None
    media_type: str | None = None  # image/png, audio/wav, application/pdf
    file_id: str | None = None
    filename: str | None = None
    detail: str | None = None
    bag: Bag = {}
    cache: str | None = None


class Refusal(msgspec.Struct, tag="refusal"):
    text: str
    bag: Bag = {}


class Reasoning(msgspec.Struct, tag="reasoning"):
    """The model's thinking. `signature` (of the text) and `encrypted` (instead of it) are proofs of a provider that speaks `origin`,
    good only there; a surface with no place of its own for a foreign proof carries it sealed (dialects/proof.py)."""

    text: str
    signature: str | None = None
    encrypted: str | None = None
    bag: Bag = {}
    origin: str = ""  # dialect the proofs belong to


class ToolCall(msgspec.Struct, tag="tool_call"):
    """`arguments` is the JSON text as the model wrote it (it may be invalid); `kind` function | custom. `signature` proves the thought
    behind it to a provider that speaks `origin`."""

    id: str
    name: str
    arguments: str
    kind: str = "function"
    bag: Bag = {}
    cache: str | None = None
    signature: str | None = None
    origin: str = ""


class ToolResult(msgspec.Struct, tag="tool_result"):
    """What a tool call gave: text, media, documents. It stands in a message of role tool or user. `is_plain`: its content was one string
    on the wire. `name`: the tool's, where the wire says it."""

    call_id: str
    parts: list[Part] = []
    is_error: bool | None = None
    is_plain: bool = True
    name: str | None = None
    bag: Bag = {}
    cache: str | None = None


class Opaque(msgspec.Struct, tag="opaque"):
    """A part only its own dialect understands, kept as it came: server tool calls, their results, what is newer than this code."""

    dialect: str
    raw: Raw
    kind: str = ""  # its type on the wire, for warnings


Part = Text | Media | Refusal | Reasoning | ToolCall | ToolResult | Opaque


class Message(msgspec.Struct):
    """`role` system | developer | user | assistant | tool (its parts are ToolResults) | function (of before tools).

    `is_plain`: its content was one string on the wire rather than a list of parts (both mean the same)."""

    role: str
    parts: list[Part] = []
    name: str | None = None
    is_plain: bool = True
    bag: Bag = {}


# --- request --------------------------------------------------------------------------------------------------------------


class Tool(msgspec.Struct):
    """`kind` function | custom | any other word: a built-in of some dialect, whole in `bag`."""

    kind: str
    name: str = ""
    description: str | None = None
    parameters: Any = None  # JSON Schema
    strict: bool | None = None
    bag: Bag = {}
    cache: str | None = None


class Request(msgspec.Struct):
    """One model call. `params` holds every other parameter under its neutral name and in its neutral shape (core/params.py), as raw JSON;
    `spelling` the wire key of those that have several and were not asked under the dialect's own; `dialect` who read it."""

    model: str
    messages: list[Message]
    tools: list[Tool] | None = None
    params: dict[str, Raw] = {}
    spelling: dict[str, str] = {}
    is_stream: bool = False
    bags: dict[str, Bag] = {}
    dialect: str = ""


# --- reply ----------------------------------------------------------------------------------------------------------------


class Choice(msgspec.Struct):
    index: int
    parts: list[Part]
    finish_reason: str | None  # stop | length | tool_calls | content_filter | refusal | other words as they came
    logprobs: Any = None
    message_bag: Bag = {}
    bag: Bag = {}


class Reply(msgspec.Struct):
    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage | None = None
    raw_usage: bytes = b""
    bags: dict[str, Bag] = {}
    dialect: str = ""
    echo: Mapping[str, Raw] = {}  # the caller's own pairs, for formats whose replies repeat the request


# --- stream ---------------------------------------------------------------------------------------------------------------


class ToolCallDelta(msgspec.Struct):
    """A fragment of tool call `index`; `id` and `name` come once, on its first fragment."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    kind: str = "function"
    bag: Bag = {}
    signature: str | None = None  # as ToolCall's
    origin: str = ""


class Delta(msgspec.Struct):
    """What one chunk adds to one choice. `signature` ends the reasoning before it, `encrypted` is a whole reasoning part of its own; both
    are proofs of `origin`. `citations` belong to the text so far, `parts` are whole parts with no finer grain (media, opaque)."""

    index: int
    role: str | None = None
    text: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] = []
    finish_reason: str | None = None
    logprobs: Any = None
    delta_bag: Bag = {}
    bag: Bag = {}
    signature: str | None = None
    encrypted: str | None = None
    origin: str = ""
    citations: list[Citation] = []
    parts: list[Part] = []


class Chunk(msgspec.Struct):
    """`dialect`: who read it; a writer of another one leaves its bags and its deltas' bags alone."""

    id: str = ""
    created: int = 0
    model: str = ""
    deltas: list[Delta] = []
    bag: Bag = {}
    dialect: str = ""


# --- crossing -------------------------------------------------------------------------------------------------------------


def leave_home(value: Request | Reply, dialect: str) -> None:
    """Empties all bags and takes out what is known by a file id, in place, when another dialect than `value`'s own is to write it."""
    if value.dialect == dialect:
        return
    value.bags = {}
    if type(value) is Request:
        value.spelling = {}
        for message in value.messages:
            message.bag = {}
            message.parts = _without_files(message.parts)
            message.is_plain = message.is_plain or _is_one_text(message.parts)
            _empty_bags(message.parts)
        for tool in value.tools or ():
            if tool.kind in ("function", "custom"):  # any other is nothing but its bag, and `lost` names it
                tool.bag = {}
    else:
        for choice in value.choices:
            choice.bag = choice.message_bag = {}
            _empty_bags(choice.parts)


def _without_files(parts: list[Part]) -> list[Part]:
    """The ids of files mean nothing to another provider."""
    return [part for part in parts if type(part) is not Media or part.url is not None or part.data is not None]


def _is_one_text(parts: list[Part]) -> bool:
    """A string means the same then, and every provider takes one."""
    return len(parts) == 1 and type(parts[0]) is Text


def _empty_bags(parts: list[Part]) -> None:
    for part in parts:
        if type(part) is Opaque:
            continue
        part.bag = {}
        if type(part) is ToolResult:
            part.parts = _without_files(part.parts)
            part.is_plain = part.is_plain or _is_one_text(part.parts)
            _empty_bags(part.parts)
        elif type(part) is Text:
            for citation in part.citations:
                citation.bag = {}
