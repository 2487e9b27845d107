"""Content blocks of Anthropic Messages ↔ neutral parts: what requests, replies and streams share. Pure.

A reader takes out of a block what the neutral form names; what stays in the dict is the part's bag. A writer is given parts of any
origin and leaves out what this format has no block for; `anthropic_lost` says so beforehand.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.neutral import Bag, Citation, Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from aigate.dialects.proof import seal, unseal

NAME = "anthropic-messages"
MEDIA_KINDS = ("image", "document")

_encode = msgspec.json.encode
_decode = msgspec.json.decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode
_ID = re.compile(r"[a-zA-Z0-9_-]{1,128}")
CALL_PROOF = "\1call"  # marks a proof that belongs to the tool call after it
_TTLS = ("5m", "1h")  # of cached prefixes; what others ask for beyond becomes the longer one
_WEB = "web_search_result_location"


def tool_id(given: str) -> str:
    """An id this format takes: the given one, or one that is always the same for it."""
    return given if _ID.fullmatch(given) else "toolu_" + blake2b(given.encode(errors="replace"), digest_size=12).hexdigest()


# --- wire → neutral -------------------------------------------------------------------------------------------------------


def read_content(content: object) -> tuple[list[Part], bool]:
    """(parts, whether the content was one string)."""
    if isinstance(content, str):
        return [Text(content)], True
    if content is None:
        return [], True
    parts = [read_block(block) for block in content] if type(content) is list else []
    for place in range(len(parts) - 2, -1, -1):  # a call takes the proof that was put before it
        proof, call = parts[place], parts[place + 1]
        if type(call) is ToolCall and type(proof) is Reasoning and (proof.signature or "").endswith(CALL_PROOF):
            call.signature, call.origin = proof.signature.removesuffix(CALL_PROOF), proof.origin  # type: ignore[union-attr]
            del parts[place]
    return parts, False


def read_block(block: Any) -> Part:
    """`block` is taken apart."""
    kind = block.get("type") if type(block) is dict else None
    read = _READERS.get(kind) if isinstance(kind, str) else None
    part = None if read is None else read(block)
    if part is None:
        return Opaque(NAME, Raw(_encode(block)), kind if isinstance(kind, str) else "")
    return part


def take_cache(fields: Bag) -> str | None:
    """The cache hint of a block or tool, taken out of it where it says no more than we name."""
    control = fields.get("cache_control")
    if type(control) is not dict or control.get("type") != "ephemeral" or not control.keys() <= {"type", "ttl"}:
        return None
    del fields["cache_control"]
    return control.get("ttl") or ""


def _read_text(block: Bag) -> Part | None:
    if not isinstance(block.get("text"), str):
        return None
    del block["type"]
    citations = block.get("citations")
    found = []
    if type(citations) is list and citations and all(type(entry) is dict for entry in citations):
        found = [read_citation(entry) for entry in block.pop("citations")]
    return Text(block.pop("text"), block, found, take_cache(block))


def read_citation(entry: Bag) -> Citation:
    url, title = entry.get("url") or entry.get("source"), entry.get("title") or entry.get("document_title")
    url, title, cited = (value if isinstance(value, str) else None for value in (url, title, entry.get("cited_text")))
    return Citation("document" if url is None else "url", url, title, cited, bag=entry)


def _read_media(block: Bag) -> Part | None:
    source = block.get("source")
    if type(source) is not dict:
        return None
    how, known = source.get("type"), {"type", "media_type"}
    media_type = source.get("media_type")
    media = Media(block["type"], media_type=media_type if isinstance(media_type, str) else None)
    if how == "base64" and isinstance(source.get("data"), str):
        media.data, known = source["data"], known | {"data"}
    elif how == "url" and isinstance(source.get("url"), str):
        media.url, known = source["url"], known | {"url"}
    elif how == "file" and isinstance(source.get("file_id"), str):
        media.file_id, known = source["file_id"], known | {"file_id"}
    elif how == "text" and isinstance(source.get("data"), str):
        media.data, known = base64.b64encode(source["data"].encode(errors="replace")).decode(), known | {"data"}
        media.media_type = "text/plain"
    else:
        return None
    if not source.keys() <= known:
        return None
    del block["type"], block["source"]
    if media.kind == "document" and isinstance(block.get("title"), str):
        media.filename = block.pop("title")
    media.cache = take_cache(block)
    media.bag = block
    return media


def _read_thinking(block: Bag) -> Part | None:
    if not isinstance(block.get("thinking"), str):
        return None
    signature = block.get("signature")
    del block["type"]
    text = block.pop("thinking")
    if not isinstance(signature, str):
        return Reasoning(text, bag=block, origin=NAME)
    del block["signature"]
    return open_reasoning(text, signature, block)


def open_reasoning(text: str, signature: str, bag: Bag) -> Reasoning:
    sealed = unseal(signature)
    if sealed is None:
        return Reasoning(text, signature, None, bag, NAME)
    proof, _, encrypted = sealed[1].partition("\0")
    return Reasoning(text, proof or None, encrypted or None, bag, sealed[0])


def _read_redacted(block: Bag) -> Part | None:
    data = block.get("data")
    if not isinstance(data, str):
        return None
    del block["type"], block["data"]
    sealed = unseal(data)
    return Reasoning("", None, data, block, NAME) if sealed is None else open_reasoning("", data, block)


def _read_call(block: Bag) -> Part | None:
    if not isinstance(block.get("id"), str) or not isinstance(block.get("name"), str):
        return None
    del block["type"]
    arguments = _encode(block.pop("input", {})).decode()
    return ToolCall(block.pop("id"), block.pop("name"), arguments, "function", block, take_cache(block))


def _read_result(block: Bag) -> Part | None:
    if not isinstance(block.get("tool_use_id"), str):
        return None
    del block["type"]
    parts, is_plain = read_content(block.pop("content", None))
    is_error = block.pop("is_error") if isinstance(block.get("is_error"), bool) else None
    return ToolResult(block.pop("tool_use_id"), parts, is_error, is_plain, None, block, take_cache(block))


_READERS = {
    "text": _read_text,
    "image": _read_media,
    "document": _read_media,
    "thinking": _read_thinking,
    "redacted_thinking": _read_redacted,
    "tool_use": _read_call,
    "tool_result": _read_result,
}


# --- neutral → wire -------------------------------------------------------------------------------------------------------


def write_blocks(parts: Iterable[Part]) -> list[Any]:
    """For a provider: what it could not take is left out."""
    return [block for part in parts if (block := write_block(part)) is not None]


def write_block(part: Part) -> Any:
    kind = type(part)
    if kind is Opaque:
        return part.raw if part.dialect == NAME else None  # type: ignore[union-attr]
    if kind is Reasoning:
        return _write_reasoning(part)  # type: ignore[arg-type]
    if kind is Refusal:
        return {"type": "text", "text": part.text} if part.text else None  # type: ignore[union-attr]
    block = _WRITERS[kind](part)  # type: ignore[index]
    if block is not None:
        put_cache(block, part.cache)  # type: ignore[union-attr]
        for key, value in part.bag.items():  # type: ignore[union-attr]
            block.setdefault(key, value)
    return block


def put_cache(fields: Bag, cache: str | None) -> None:
    if cache is not None:
        fields["cache_control"] = {"type": "ephemeral", "ttl": cache if cache in _TTLS else "1h"} if cache else {"type": "ephemeral"}


def _write_text(text: Text) -> Bag | None:
    if not text.text and not text.bag:
        return None  # refused
    block: Bag = {"type": "text", "text": text.text}
    if text.citations:
        block["citations"] = [write_citation(citation) for citation in text.citations]
    return block


def write_citation(citation: Citation) -> Bag:
    """As it came, or as a place on the web: this format has no other that stands alone."""
    if citation.bag:
        return citation.bag
    cited = citation.cited_text or ""
    return {"type": _WEB, "url": citation.url or "", "title": citation.title, "encrypted_index": "", "cited_text": cited}


def _write_media(media: Media) -> Bag | None:
    if media.kind not in MEDIA_KINDS:
        return None
    if media.url is not None:
        source = {"type": "url", "url": media.url}
    elif media.file_id is not None:
        source = {"type": "file", "file_id": media.file_id}
    elif media.data is None:
        return None
    elif media.kind == "document" and media.media_type == "text/plain":
        source = {"type": "text", "media_type": "text/plain", "data": _plain_text(media.data)}
    else:
        default = "image/png" if media.kind == "image" else "application/pdf"
        source = {"type": "base64", "media_type": media.media_type or default, "data": media.data}
    block: Bag = {"type": media.kind, "source": source}
    if media.kind == "document" and media.filename is not None:
        block["title"] = media.filename
    return block


def _plain_text(data: str) -> str:
    try:
        return base64.b64decode(data).decode(errors="replace")
    except (binascii.Error, ValueError):
        return data


def _write_reasoning(part: Reasoning) -> Bag | None:
    """Thinking with this vendor's own proof; foreign thinking never goes back to a provider."""
    if part.origin != NAME:
        return None
    if part.encrypted is not None:
        return {"type": "redacted_thinking", "data": part.encrypted, **part.bag}
    if part.signature is None:
        return None
    return {"type": "thinking", "thinking": part.text, "signature": part.signature, **part.bag}


def seal_reasoning(origin: str, signature: str | None, encrypted: str | None) -> str:
    """What stands in a thinking block's `signature` for foreign thinking, so that it is known again when it comes back."""
    return seal(origin, f"{signature or ''}\0{encrypted or ''}")


def _write_call(call: ToolCall) -> Bag:
    return {"type": "tool_use", "id": tool_id(call.id), "name": call.name, "input": tool_input(call)}


def tool_input(call: ToolCall) -> Raw:
    """The arguments as a JSON object: this format takes nothing else."""
    if call.kind == "custom":
        return Raw(_encode({"input": call.arguments}))
    try:
        _decode_object(call.arguments)
    except (msgspec.DecodeError, RecursionError):
        return Raw(b"{}")
    return Raw(call.arguments.encode(errors="replace"))


def _write_result(result: ToolResult) -> Bag:
    block: Bag = {"type": "tool_result", "tool_use_id": tool_id(result.call_id)}
    if result.is_plain and all(type(part) is Text and not part.bag and part.cache is None for part in result.parts):
        if result.parts:
            block["content"] = "".join(part.text for part in result.parts)  # type: ignore[union-attr]
    else:
        block["content"] = write_blocks(result.parts)
    if result.is_error is not None:
        block["is_error"] = result.is_error
    return block


_WRITERS = {Text: _write_text, Media: _write_media, ToolCall: _write_call, ToolResult: _write_result}


def write_content(parts: Sequence[Part], is_plain: bool) -> str | list[Any]:
    if is_plain and len(parts) == 1 and type(parts[0]) is Text and not parts[0].bag and parts[0].cache is None and parts[0].text:
        return parts[0].text
    return write_blocks(parts)
