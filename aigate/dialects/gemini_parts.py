"""Contents and parts of Gemini ↔ neutral messages and parts: what requests, replies and streams share. Pure.

A reader takes out of a wire part what the neutral form names; what stays in the dict is the part's bag. Clients spell keys in camelCase or
snake_case; both are read, camelCase is written. Tool calls may lack an id on this wire: they get one that `is_made_up` knows again, so that
it is never sent back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.neutral import Bag, Media, Message, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from aigate.dialects.proof import PLAIN_BASE64, seal, unseal

NAME = "gemini"
# Stands in the place of a signature for calls that another model made, so that the ones who insist on signatures take them
# (ai.google.dev/gemini-api/docs/thought-signatures).
NO_SIGNATURE = "skip_thought_signature_validator"
FILES_PREFIX = "https://generativelanguage.googleapis.com/"

_MADE_UP = "call_unnamed_"
_SIDE_KEYS = frozenset({"thought", "thoughtSignature"})
_SNAKE = re.compile(r"_+([a-z0-9])")
_encode = msgspec.json.encode
_decode = msgspec.json.decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


@lru_cache(1024)
def camel(key: str) -> str:
    """`inline_data` → `inlineData`: the wire's own spelling of a field name."""
    return _SNAKE.sub(lambda found: found[1].upper(), key) if "_" in key else key


def camel_keys(fields: Mapping[str, Any]) -> Bag:
    """One level only: what is below may be the caller's own data."""
    return {camel(key): value for key, value in fields.items()}


def made_up_id(reply_id: str, choice: int, index: int) -> str:
    """An id for a call that came without one: the same for the same place in the same reply."""
    return _MADE_UP + blake2b(f"{reply_id}:{choice}:{index}".encode(errors="replace"), digest_size=10).hexdigest()


def is_made_up(call_id: str) -> bool:
    return call_id.startswith(_MADE_UP)


def media_kind(media_type: object) -> str:
    kind = media_type.partition("/")[0] if isinstance(media_type, str) else ""
    return kind if kind in ("image", "audio", "video") else "document"


# --- wire → neutral -------------------------------------------------------------------------------------------------------


def read_part(part: Any) -> Part:
    """`part` is not kept. A call without an id has id "" here: who reads it knows its place."""
    if type(part) is not dict:
        return Opaque(NAME, Raw(_encode(part)))
    fields = camel_keys(part)
    kinds = [kind for kind in fields if kind in _READERS]
    if len(kinds) == 1:
        read = _READERS[kinds[0]](fields, fields.pop(kinds[0]))
        if read is not None:
            return read
    return Opaque(NAME, Raw(_encode(part)), next((key for key in camel_keys(part) if key not in _SIDE_KEYS), ""))


def _read_text(fields: Bag, text: Any) -> Part | None:
    if not isinstance(text, str):
        return None
    if fields.get("thought") is not True:
        return Text(text, fields)
    del fields["thought"]
    origin, signature, encrypted = _take_proof(fields)
    return Reasoning(text, signature, encrypted, fields, origin or NAME)


def _take_proof(fields: Bag) -> tuple[str, str | None, str | None]:
    """(origin, signature, encrypted) of a part's signature: this format's own, or one of another vendor that it carries sealed."""
    given = fields.get("thoughtSignature")
    if not isinstance(given, str):
        return "", None, None
    del fields["thoughtSignature"]
    sealed = unseal(given)
    if sealed is None:
        return NAME, given, None
    signature, _, encrypted = sealed[1].partition("\0")
    return sealed[0], signature or None, encrypted or None


def _read_inline(fields: Bag, inside: Any) -> Part | None:
    inside = camel_keys(inside) if type(inside) is dict else {}
    data, media_type = inside.pop("data", None), inside.pop("mimeType", None)
    if not isinstance(data, str) or fields.get("thought") is not None:
        return None
    if "-" in data or "_" in data:  # base64 for URLs, as the vendor's SDK writes it: no other format takes that
        data = data.translate(PLAIN_BASE64)
    media = Media(media_kind(media_type), data=data, media_type=media_type, filename=inside.pop("displayName", None), bag=fields)
    if inside:
        fields["inlineData"] = inside
    return media


def _read_file(fields: Bag, inside: Any) -> Part | None:
    inside = camel_keys(inside) if type(inside) is dict else {}
    uri, media_type = inside.pop("fileUri", None), inside.pop("mimeType", None)
    if not isinstance(uri, str):
        return None
    media = Media(media_kind(media_type), media_type=media_type, filename=inside.pop("displayName", None), bag=fields)
    if uri.startswith(("http://", "https://")) and not uri.startswith(FILES_PREFIX):
        media.url = uri
    else:
        media.file_id = uri
    if inside:
        fields["fileData"] = inside
    return media


def _read_call(fields: Bag, inside: Any) -> Part | None:
    inside = camel_keys(inside) if type(inside) is dict else {}
    name, args = inside.pop("name", None), inside.pop("args", None)
    if not isinstance(name, str) or "partialArgs" in inside:
        return None
    origin, signature, _ = _take_proof(fields)
    if signature == NO_SIGNATURE:
        origin, signature = "", None
    call_id = inside.pop("id", None)
    arguments = _encode(args if type(args) is dict else {}).decode()
    if inside:
        fields["functionCall"] = inside
    return ToolCall(call_id if isinstance(call_id, str) else "", name, arguments, "function", fields, None, signature, origin)


def _read_result(fields: Bag, inside: Any) -> Part | None:
    inside = camel_keys(inside) if type(inside) is dict else {}
    name, call_id, response = inside.pop("name", None), inside.pop("id", None), inside.pop("response", None)
    if not isinstance(name, str):
        return None
    result = ToolResult(call_id if isinstance(call_id, str) else "", name=name, bag=fields)
    if type(response) is dict:
        value = response
        if response.keys() == {"output"}:
            value = response["output"]
        elif response.keys() == {"error"}:
            value, result.is_error = response["error"], True
        result.parts.append(Text(value if isinstance(value, str) else _encode(value).decode()))
        inside["response"] = response  # for the way back: text says less than an object
    media = inside.get("parts")
    if type(media) is list and media:
        del inside["parts"]
        result.parts += map(read_part, media)
        result.is_plain = False
    if inside:
        fields["functionResponse"] = inside
    return result


_READERS = {
    "text": _read_text,
    "inlineData": _read_inline,
    "fileData": _read_file,
    "functionCall": _read_call,
    "functionResponse": _read_result,
}


def read_contents(contents: Sequence[Bag]) -> list[Message]:
    """The conversation. Calls without ids get made-up ones by their place, results without ids those of the calls they answer."""
    messages: list[Message] = []
    waiting: list[ToolCall] = []  # calls not answered yet
    count = 0
    for content in contents:
        message = read_content(content)
        last = messages[-1] if messages else None
        if last is not None and last.role == message.role == "assistant" and not message.bag:
            last.parts += message.parts  # a streamed turn, chunk by chunk in a client's history
        else:
            messages.append(message)
        for part in message.parts:
            if type(part) is ToolCall:
                if not part.id:
                    part.id = made_up_id("request", 0, count)
                count += 1
                waiting.append(part)
            elif type(part) is ToolResult:
                answered = _answered(part, waiting)
                if answered is not None:
                    waiting.remove(answered)
                    if part.call_id not in ("", answered.id):
                        part.bag.setdefault("functionResponse", {})["id"] = part.call_id  # the client's own, for the way back
                    part.call_id = answered.id
                elif not part.call_id:
                    part.call_id = made_up_id("unasked", 0, count)
    return messages


def _answered(result: ToolResult, waiting: Sequence[ToolCall]) -> ToolCall | None:
    """The call that `result` is for: by its id, else the first of its name that has no id of its own."""
    if result.call_id:
        named = next((call for call in waiting if call.id == result.call_id), None)
        if named is not None:
            return named
    return next((call for call in waiting if call.name == result.name and (is_made_up(call.id) or not result.call_id)), None)


def read_content(content: Bag) -> Message:
    fields = camel_keys(content)
    role, parts = fields.pop("role", None), fields.pop("parts", None)
    message = Message("assistant" if role == "model" else "user", bag=fields)
    if role not in ("user", "model"):
        fields["role"] = role
    message.parts = [read_part(part) for part in parts] if type(parts) is list else [read_part(parts)] if type(parts) is dict else []
    texts = sum(type(part) is Text for part in message.parts)
    message.is_plain = role == "model" or texts == len(message.parts) == 1
    return message


# --- neutral → wire -------------------------------------------------------------------------------------------------------


def write_part(part: Part, *, is_for_client: bool = False, needs_signature: bool = False) -> Any:
    """None for what this format has no part for, and for what must not reach a provider: `lost` says so beforehand. `is_for_client`:
    foreign proofs are sealed rather than left out. `needs_signature`: a call is not taken without."""
    kind = type(part)
    if kind is Opaque:
        return part.raw if part.dialect == NAME else None  # type: ignore[union-attr]
    if kind is Text or kind is Refusal:
        return {"text": part.text, **part.bag}  # type: ignore[union-attr]
    if kind is Media:
        return _write_media(part)  # type: ignore[arg-type]
    if kind is ToolResult:
        return _write_result(part)  # type: ignore[arg-type]
    if kind is Reasoning:
        if part.origin != NAME and not is_for_client:  # type: ignore[union-attr]
            return None
        thought = {"text": part.text, "thought": True, **part.bag}  # type: ignore[union-attr]
        put_proof(thought, part.origin, part.signature, part.encrypted)  # type: ignore[union-attr]
        return thought
    assert type(part) is ToolCall
    fields: Bag = {"functionCall": function_call(part.id, part.name, part.arguments, part.kind) | part.bag.get("functionCall", {})}
    for key, value in part.bag.items():
        fields.setdefault(key, value)
    if part.signature and (part.origin == NAME or is_for_client):
        put_proof(fields, part.origin, part.signature, None)
    elif needs_signature:
        fields["thoughtSignature"] = NO_SIGNATURE
    return fields


def put_proof(fields: Bag, origin: str, signature: str | None, encrypted: str | None) -> None:
    if origin == NAME:
        if signature:
            fields["thoughtSignature"] = signature
    elif signature or encrypted:
        fields["thoughtSignature"] = seal(origin, f"{signature or ''}\0{encrypted or ''}")


def function_call(call_id: str, name: str, arguments: str, kind: str = "function") -> Bag:
    """Arguments must be an object here: text of a free-form tool is wrapped, what is no object is left out."""
    inside: Bag = {"name": name}
    if kind == "custom":
        inside["args"] = {"input": arguments}
    else:
        try:
            _decode_object(arguments)
            inside["args"] = Raw(arguments.encode(errors="replace"))
        except (msgspec.DecodeError, RecursionError):
            inside["args"] = {}
    if call_id and not is_made_up(call_id):
        inside["id"] = call_id
    return inside


def _write_media(media: Media) -> Bag | None:
    if media.data is not None:
        key, inside = "inlineData", {"mimeType": media.media_type or _DEFAULT_TYPES[media.kind], "data": media.data}
    elif media.url is not None or media.file_id is not None:
        key, inside = "fileData", {"fileUri": media.url or media.file_id}
        media_type = media.media_type or _type_of(media)
        if media_type is not None:
            inside["mimeType"] = media_type
    else:
        return None
    if media.filename is not None and key in media.bag:
        inside["displayName"] = media.filename
    return {**media.bag, key: {**inside, **media.bag.get(key, {})}}


_DEFAULT_TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/pdf"}
_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "heic": "image/heic",
    "pdf": "application/pdf", "txt": "text/plain", "wav": "audio/wav", "mp3": "audio/mpeg", "mp4": "video/mp4", "webm": "video/webm",
}  # fmt: skip


def _type_of(media: Media) -> str | None:
    """What a URL's ending says; for an own file id nothing: the vendor knows."""
    if media.url is None:
        return None
    ending = media.url.partition("?")[0].partition("#")[0].rpartition(".")[2].lower()
    return _TYPES.get(ending) or ("image/jpeg" if media.kind == "image" else _DEFAULT_TYPES[media.kind])


def _write_result(result: ToolResult) -> Bag:
    own = result.bag.get("functionResponse", {})
    inside: Bag = {"name": result.name or "", **own}
    if result.call_id and not is_made_up(result.call_id):
        inside["id"] = result.call_id
    if "response" not in inside:
        text = "".join(part.text for part in result.parts if type(part) in (Text, Refusal))  # type: ignore[union-attr]
        inside["response"] = {"error" if result.is_error else "output": text}
    media = [written for part in result.parts if type(part) in (Media, Opaque) and (written := write_part(part)) is not None]
    if media:
        inside["parts"] = media
    return {**result.bag, "functionResponse": inside}


def write_contents(messages: Iterable[Message], *, needs_signatures: bool) -> list[Bag]:
    """The conversation without its instructions. Results of one turn's calls come together, before what else the user says."""
    contents: list[Bag] = []
    names: dict[str, str] = {}
    last: Message | None = None
    for message in messages:
        if message.role in ("system", "developer"):
            continue
        for part in message.parts:
            if type(part) is ToolCall:
                names[part.id] = part.name
            elif type(part) is ToolResult and part.name is None:
                part.name = names.get(part.call_id, "")
        parts = _write_parts(message, needs_signatures)
        if last is not None and last.role == message.role == "tool":
            contents[-1]["parts"] += parts
        elif parts or message.bag:
            contents.append({"role": "model" if message.role == "assistant" else "user", "parts": parts} | message.bag)
        else:
            continue
        last = message
    return contents


def _write_parts(message: Message, needs_signatures: bool) -> list[Any]:
    """A turn's first call stands for all of them: it alone may lack no signature."""
    parts: Sequence[Part] = message.parts
    if message.role != "assistant":
        parts = sorted(parts, key=lambda part: type(part) is not ToolResult)
    calls = [part for part in parts if type(part) is ToolCall]
    unsigned = calls[0] if needs_signatures and calls and not any(call.origin == NAME and call.signature for call in calls) else None
    written = [write_part(part, needs_signature=part is unsigned) for part in parts]
    return [part for part in written if part is not None]
