"""Messages of OpenAI chat ↔ neutral parts: what requests, replies and streams share. Pure.

`read_parts` takes out of a wire message what the neutral form names; what stays in the dict is the message's bag.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from aigate.core.neutral import Bag, Citation, Media, Message, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolCallDelta, ToolResult
from aigate.dialects.openai_chat_details import DETAILS, take_details
from aigate.dialects.proof import seal, unseal
from aigate.errors import ClientError

NAME = "openai-chat"
LEGACY_CALL = "function_call"  # ToolCall.kind of the one call that had no id, of before tools

_encode = msgspec.json.encode
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_URL_KINDS = {"image_url": "image", "video_url": "video"}
_URL_KEYS = {kind: key for key, kind in _URL_KINDS.items()}


def mint_call_id(reply_id: str, choice: int, index: int) -> str:
    """An id for a tool call that came without one: the same for the same place in the same reply."""
    return "call_" + blake2b(f"{reply_id}:{choice}:{index}".encode(), digest_size=12).hexdigest()


def as_text(value: object) -> str:
    """A string as it is, anything else as JSON text (some send tool arguments as objects)."""
    return value if isinstance(value, str) else "" if value is None else _encode(value).decode()


def split_content(content: list[Any]) -> tuple[str | None, str | None, list[Any]]:
    """A content array of a reply or delta → (text, reasoning, parts that are neither)."""
    texts: list[str] = []
    thoughts: list[str] = []
    others: list[Any] = []
    for part in content:
        kind = part.get("type") if type(part) is dict else None
        if kind == "text" and isinstance(part.get("text"), str):
            texts.append(part["text"])
        elif kind == "thinking":
            inner = part.get("thinking")
            inner = inner if type(inner) is list else [{"text": inner}]
            thoughts += [as_text(piece.get("text")) for piece in inner if type(piece) is dict]
        else:
            others.append(part)
    return "".join(texts) if texts else None, "".join(thoughts) if thoughts else None, others


# --- wire → neutral -------------------------------------------------------------------------------------------------------


def read_message(fields: Bag) -> Message:
    """A request's message. `fields` is taken apart."""
    role, name, call_id = fields.pop("role", ""), fields.get("name"), fields.get("tool_call_id")
    if isinstance(name, str):
        del fields["name"]
    else:
        name = None
    if role == "tool" and isinstance(call_id, str):
        del fields["tool_call_id"]
        parts, is_plain = read_parts(fields)
        return Message(role, [ToolResult(call_id, parts, is_plain=is_plain, name=name, bag=fields)])
    parts, is_plain = read_parts(fields)
    return Message(role, parts, name, is_plain, fields)


def read_parts(fields: Bag) -> tuple[list[Part], bool]:
    """(parts, whether the content was one string), taken out of `fields`."""
    parts: list[Part] = []
    is_plain = True
    thoughts = take_details(fields) if DETAILS in fields else None
    if thoughts is not None:
        parts += thoughts
    elif isinstance(fields.get("reasoning_content"), str):
        parts.append(Reasoning(fields.pop("reasoning_content")))
    content = fields.get("content")
    if isinstance(content, str):
        parts.append(Text(fields.pop("content")))
    elif type(content) is list:
        is_plain = False
        parts += map(_read_part, fields.pop("content"))
    if isinstance(fields.get("refusal"), str):
        parts.append(Refusal(fields.pop("refusal")))
    calls = fields.get("tool_calls")
    if type(calls) is list and calls and all(map(_is_call, calls)):
        parts += map(_read_call, fields.pop("tool_calls"))
    legacy = fields.get(LEGACY_CALL)
    if type(legacy) is dict:
        del fields[LEGACY_CALL]
        parts.append(ToolCall("", as_text(legacy.pop("name", None)), as_text(legacy.pop("arguments", None)), LEGACY_CALL, legacy))
    return parts, is_plain


def _is_call(entry: object) -> bool:
    return type(entry) is dict and (type(entry.get("function")) is dict or type(entry.get("custom")) is dict)


def _read_call(entry: Bag) -> ToolCall:
    kind = "custom" if entry.get("type") == "custom" or "function" not in entry else "function"
    entry.pop("type", None)
    inside = entry.pop(kind)
    call = ToolCall(
        as_text(entry.pop("id", None)),
        as_text(inside.pop("name", None)),
        as_text(inside.pop("input" if kind == "custom" else "arguments", None)),
        kind,
        entry,
    )
    if inside:
        entry[kind] = inside
    call.origin, call.signature = _signature(entry)
    if call.signature is not None and call.origin != "gemini":
        del entry["extra_content"]  # sealed, for nobody else to see
    return call


def _signature(entry: Bag) -> tuple[str, str | None]:
    """(origin, proof) of the thought behind a call, where Google's own layer over this format puts it."""
    extra = entry.get("extra_content")
    google = extra.get("google") if type(extra) is dict else None
    given = google.get("thought_signature") if type(google) is dict else None
    if not isinstance(given, str):
        return "", None
    return unseal(given) or ("gemini", given)


def put_signature(fields: Bag, call: ToolCall | ToolCallDelta) -> None:
    """The same for a client, who brings it back with the call."""
    if call.signature:
        proof = call.signature if call.origin == "gemini" else seal(call.origin, call.signature)
        fields.setdefault("extra_content", {"google": {"thought_signature": proof}})


def _read_part(part: Any) -> Part:
    kind = part.get("type") if type(part) is dict else None
    if kind == "text" and isinstance(part.get("text"), str):
        del part["type"]
        return Text(part.pop("text"), part)
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        del part["type"]
        return Refusal(part.pop("refusal"), part)
    inside = part.get(kind) if isinstance(kind, str) else None
    if type(inside) is not dict or kind not in ("image_url", "video_url", "input_audio", "file"):
        return Opaque(NAME, msgspec.Raw(_encode(part)), kind if isinstance(kind, str) else "")
    del part["type"], part[kind]
    media = _read_media(kind, inside)
    if inside:
        part[kind] = inside
    media.bag = part
    return media


def _string(inside: Bag, key: str) -> str | None:
    """Raises ClientError whose `param` is the field alone: who reads the message knows its place."""
    value = inside.pop(key, None)
    if value is not None and not isinstance(value, str):
        raise ClientError(f"{key} of a part must be a string", param=key)
    return value


def _read_media(kind: str, inside: Bag) -> Media:
    if kind == "input_audio":
        return Media("audio", data=_string(inside, "data"), media_type="audio/" + as_text(inside.pop("format", None)))
    if kind == "file":
        data, media_type = _string(inside, "file_data"), None
        found = None if data is None else _DATA_URL.match(data)
        if data is not None and found:
            data, media_type = data[found.end() :], found[1]
        file_id, filename = _string(inside, "file_id"), _string(inside, "filename")
        return Media("document", data=data, media_type=media_type, file_id=file_id, filename=filename)
    url, detail = _string(inside, "url"), _string(inside, "detail")
    found = None if url is None else _DATA_URL.match(url)
    if url is not None and found:
        return Media(_URL_KINDS[kind], data=url[found.end() :], media_type=found[1], detail=detail)
    return Media(_URL_KINDS[kind], url=url, detail=detail)


# --- neutral → wire -------------------------------------------------------------------------------------------------------


def write_message(message: Message) -> list[Bag]:
    """The wire messages of one neutral message: each tool result is one, and what stands beside them follows in one of the user's."""
    results = [part for part in message.parts if type(part) is ToolResult]
    if not results:
        return [_write_message(message)]
    written = [_write_result(result) for result in results]
    others = [part for result in results for part in result.parts if not _is_text(part)]
    others += [part for part in message.parts if type(part) is not ToolResult]
    if others:
        written.append(_write_message(Message("user", others, message.name, False, message.bag)))
    return written


def _is_text(part: Part) -> bool:
    return type(part) is Text or (type(part) is Opaque and part.dialect == NAME)


def _write_message(message: Message) -> Bag:
    fields: Bag = {"role": message.role}
    if message.name is not None:
        fields["name"] = message.name
    return _fill(fields | write_parts(message.parts, message.is_plain), message.bag)


def _write_result(result: ToolResult) -> Bag:
    """Text only: this format takes nothing else in a tool message."""
    fields: Bag = {"role": "tool", "tool_call_id": result.call_id}
    if result.name is not None:
        fields["name"] = result.name
    texts = [part for part in result.parts if _is_text(part)]
    return _fill({"content": "", **fields, **write_parts(texts, result.is_plain)}, result.bag)


def _fill(fields: Bag, bag: Bag) -> Bag:
    for key, value in bag.items():
        fields.setdefault(key, value)
    return fields


def write_parts(parts: Sequence[Part], is_plain: bool) -> Bag:
    """The fields of a wire message that `parts` stand for."""
    fields: Bag = {}
    thoughts = [part.text for part in parts if type(part) is Reasoning and (part.text or part.encrypted is None)]
    calls = [part for part in parts if type(part) is ToolCall]
    content = [part for part in parts if type(part) is not Reasoning and type(part) is not ToolCall]
    if is_plain and all(type(part) in (Text, Refusal) and not part.bag for part in content):
        texts = [part.text for part in content if type(part) is Text]
        refusals = [part.text for part in content if type(part) is Refusal]
        if texts:
            fields["content"] = "".join(texts)
        if refusals:
            fields["refusal"] = "".join(refusals)
    else:
        fields["content"] = [_write_part(part) for part in content if has_place(part)]
    if thoughts:
        fields["reasoning_content"] = "".join(thoughts)
    for call in calls:
        if call.kind == LEGACY_CALL:
            fields[LEGACY_CALL] = {**call.bag, "name": call.name, "arguments": call.arguments}
        else:
            fields.setdefault("tool_calls", []).append(_write_call(call))
    return fields


def has_place(part: Part) -> bool:
    """Whether content of this format can hold it. Documents have no URL here, sound is only ever data."""
    if type(part) is Media:
        return part.data is not None or part.file_id is not None or (part.url is not None and part.kind in _URL_KEYS)
    return type(part) is not Opaque or part.dialect == NAME


def read_citations(annotations: object) -> list[Citation]:
    """The places on the web that annotations name."""
    found = []
    for entry in annotations if type(annotations) is list else ():
        place = entry.get("url_citation") if type(entry) is dict else None
        if type(place) is dict and isinstance(place.get("url"), str):
            title, start, end = place.get("title"), place.get("start_index"), place.get("end_index")
            title = title if isinstance(title, str) else None
            found.append(Citation("url", place["url"], title, None, *(at if type(at) is int else None for at in (start, end))))
    return found


def write_annotation(citation: Citation, start: int | None, end: int | None) -> Bag:
    """`start`, `end`: characters of the whole text, where they are known."""
    place = {"url": citation.url, "title": citation.title or "", "start_index": start, "end_index": end}
    return {"type": "url_citation", "url_citation": {key: value for key, value in place.items() if value is not None}}


def _write_call(call: ToolCall) -> Bag:
    value_key = "input" if call.kind == "custom" else "arguments"
    inside = {"name": call.name, value_key: call.arguments, **call.bag.get(call.kind, {})}
    return {**call.bag, "id": call.id, "type": call.kind, call.kind: inside}


def _write_part(part: Part) -> object:
    if type(part) is Text:
        return {"type": "text", "text": part.text, **part.bag}
    if type(part) is Refusal:
        return {"type": "refusal", "refusal": part.text, **part.bag}
    if type(part) is Media:
        return _write_media(part)
    assert type(part) is Opaque
    return part.raw


def _write_media(media: Media) -> Bag:
    data_url = None if media.data is None else f"data:{media.media_type};base64,{media.data}"
    inside: dict[str, object | None]
    if media.kind == "audio":
        key = "input_audio"
        inside = {"data": media.data, "format": (media.media_type or "").removeprefix("audio/")}
    elif media.kind in _URL_KEYS:
        key = _URL_KEYS[media.kind]
        inside = {"url": data_url if media.url is None else media.url, "detail": media.detail}
    else:
        key = "file"
        data = media.data if media.media_type is None else data_url
        inside = {"file_data": data, "file_id": media.file_id, "filename": media.filename}
    inside = {name: value for name, value in inside.items() if value is not None} | media.bag.get(key, {})
    return {"type": key, **media.bag, key: inside}
