"""The neutral form: what a request, a reply and a chunk mean, in no provider's words. Pure structures.

Rich enough that read∘write of one dialect loses no meaning. What a dialect has and this form does not name travels in bags: {wire key:
JSON value}, written back only by the same dialect. Absent is `None` (or an empty tuple), an explicit null of the wire is kept in the
bag as `None`.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.usage import Usage

Bag = dict[str, Any]  # wire key → JSON value, decoded or Raw


# --- parts of a message -------------------------------------------------------------------------------------------------


class Text(msgspec.Struct, tag="text"):
    text: str
    bag: Bag = {}


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


class Refusal(msgspec.Struct, tag="refusal"):
    text: str
    bag: Bag = {}


class Reasoning(msgspec.Struct, tag="reasoning"):
    """The model's thinking. `signature` and `encrypted` are the provider's own proofs, good only where they came from."""

    text: str
    signature: str | None = None
    encrypted: str | None = None
    bag: Bag = {}


class ToolCall(msgspec.Struct, tag="tool_call"):
    """`arguments` is the JSON text as the model wrote it (it may be invalid); `kind` function | custom."""

    id: str
    name: str
    arguments: str
    kind: str = "function"
    bag: Bag = {}


class Opaque(msgspec.Struct, tag="opaque"):
    """A part only its own dialect understands, kept as it came."""

    dialect: str
    raw: Raw


Part = Text | Media | Refusal | Reasoning | ToolCall | Opaque


class Message(msgspec.Struct):
    """`role` system | developer | user | assistant | tool | function. A tool message answers `tool_call_id`.

    `is_plain` : its content was one string on the wire rather than a list of parts (both mean the same)."""

    role: str
    parts: list[Part] = []
    name: str | None = None
    tool_call_id: str | None = None
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


class Request(msgspec.Struct):
    """One model call. `params` holds every other parameter under its neutral name (core/params.py), as raw JSON; `spelling` the wire
    key of those that have several and were not asked under the dialect's own."""

    model: str
    messages: list[Message]
    tools: list[Tool] | None = None
    params: dict[str, Raw] = {}
    spelling: dict[str, str] = {}
    is_stream: bool = False
    bags: dict[str, Bag] = {}


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


# --- stream ---------------------------------------------------------------------------------------------------------------


class ToolCallDelta(msgspec.Struct):
    """A fragment of tool call `index`; `id` and `name` come once, on its first fragment."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""
    kind: str = "function"
    bag: Bag = {}


class Delta(msgspec.Struct):
    """What one chunk adds to one choice."""

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


class Chunk(msgspec.Struct):
    id: str = ""
    created: int = 0
    model: str = ""
    deltas: list[Delta] = []
    bag: Bag = {}
