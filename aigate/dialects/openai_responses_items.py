"""Items of OpenAI Responses ↔ neutral messages and parts: what requests, replies and streams share. Pure.

Everything the assistant did in a row (reasoning, texts, calls) is one neutral message, as other formats want it. The fields of an item that
the neutral form does not name stay in the bag of its (first) part: under ITEM for a message item, whose parts have fields of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.neutral import Bag, Citation, Media, Message, Opaque, Part, Reasoning, Refusal, Text, ToolCall, ToolResult
from aigate.dialects.body import check_fields
from aigate.dialects.openai_chat_message import LEGACY_CALL, as_text, mint_call_id
from aigate.dialects.proof import seal, unseal
from aigate.errors import ClientError

NAME = "openai-responses"
ITEM = "item"  # key of a bag: the fields of the message item that begins with this part
ELSEWHERE = "elsewhere"  # where reasoning without a proof is from: no provider of this format could find such an item
CALL_PROOF = "of the next call"  # key of a bag: see `give_proofs`
INSTRUCTIONS = "instructions"  # key of a message's bag: it came under that key, not among the items
SUMMARY = "compaction"  # type of the item that stands for a conversation
ROLES = ("user", "assistant", "system", "developer")
CALL_INPUTS = {"function_call": "arguments", "custom_tool_call": "input"}  # item type → key of what the tool is called with
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+);base64,")
_FILE_KEYS = ("file_id", "file_url", "file_data", "filename")

_encode = msgspec.json.encode


# --- wire → neutral -------------------------------------------------------------------------------------------------------


def read_items(items: Sequence[Any], where: str = "input") -> list[Message]:
    messages: list[Message] = []
    for place, item in enumerate(items):
        path = f"{where}[{place}]"
        if type(item) is not dict:
            raise ClientError(f"{path} must be an object", param=path)
        kind = kind_of(item)
        role = item.get("role") if kind == "message" else None
        if role is not None and role != "assistant":
            messages.append(_read_message(item, path))
            continue
        if kind == SUMMARY and (summary := unseal_summary(item)) is not None:
            messages.append(Message("user", [Text(summary)]))
            continue
        parts = read_item(item, path)
        if kind in _OUTPUTS:
            messages.append(Message("tool", parts))
        elif messages and messages[-1].role == "assistant":
            messages[-1].parts += parts
        else:
            messages.append(Message("assistant", parts))
    for message in messages:
        if message.role == "assistant":
            message.parts = give_proofs(message.parts)
    return messages


def seal_summary(summary: str) -> str:
    """The content of a compaction item made here."""
    return seal(SUMMARY, summary)


def unseal_summary(item: Bag) -> str | None:
    """What a compaction item made here says; None of the vendor's own."""
    content = item.get("encrypted_content")
    sealed = unseal(content) if isinstance(content, str) else None
    return f"This is a summary of the conversation until here:\n\n{sealed[1]}" if sealed is not None and sealed[0] == SUMMARY else None


def give_proofs(parts: list[Part]) -> list[Part]:
    """Proofs that belong to a call travelled in a reasoning item before it: each goes back to its call."""
    kept: list[Part] = []
    proof: Reasoning | None = None
    for part in parts:
        if type(part) is Reasoning and CALL_PROOF in part.bag:
            proof = part
            continue
        if type(part) is ToolCall and proof is not None:
            part.signature, part.origin, proof = proof.signature, proof.origin, None
        kept.append(part)
    return kept


def kind_of(item: Bag) -> str:
    """An item's type: only a message may leave it out."""
    kind = item.get("type", "message")
    return kind if isinstance(kind, str) else ""


def objects(value: object) -> list[Bag]:
    """The objects of an array; none of anything else."""
    return [each for each in value if type(each) is dict] if type(value) is list else []


def _string(fields: Bag, key: str) -> str | None:
    value = fields.pop(key, None)
    return value if isinstance(value, str) else None


def _read_message(item: Bag, path: str) -> Message:
    role = item.pop("role")
    if role not in ROLES:
        raise ClientError(f"{path}.role must be one of {', '.join(ROLES)}", param=f"{path}.role")
    content = item.pop("content", None)
    return Message(role, _read_content(content, f"{path}.content"), is_plain=type(content) is str, bag=item)


def read_item(item: Bag, path: str) -> list[Part]:
    """The parts of an item that is no message of somebody else than the assistant. `item` is taken apart."""
    kind = kind_of(item)
    if kind == "message" and "role" in item:
        parts = _read_content(item.pop("content", None), f"{path}.content") or [Text("")]
        if type(parts[0]) is not Opaque:
            parts[0].bag[ITEM] = item
        return parts
    if kind == "reasoning":
        return [_read_reasoning(item)]
    if kind in CALL_INPUTS:
        return [_read_call(item, kind, path)]
    if kind in _OUTPUTS:
        return [_read_output(item, path)]
    return [Opaque(NAME, Raw(_encode(item)), kind)]


def _read_content(content: object, path: str) -> list[Part]:
    if type(content) is str:
        return [Text(content, {})]
    if type(content) is not list or any(type(part) is not dict for part in content):
        raise ClientError(f"{path} must be a string or an array of parts", param=path)
    for place, part in enumerate(content):
        check_fields(part, _NEEDED.get(kind_of(part), {}), f"{path}[{place}]")
    return [_read_part(part) for part in content]


_NEEDED: Mapping[str, Mapping[str, type]] = {"input_text": {"text": str}, "output_text": {"text": str}, "refusal": {"refusal": str}}


def _read_part(part: Bag) -> Part:
    kind = kind_of(part)
    if kind in ("input_text", "output_text", "text") and type(part.get("text")) is str:
        del part["type"]
        citations = [read_annotation(each) for each in objects(part.pop("annotations", None))]
        return Text(part.pop("text"), part, citations)
    if kind == "refusal" and type(part.get("refusal")) is str:
        del part["type"]
        return Refusal(part.pop("refusal"), part)
    if kind == "input_image":
        del part["type"]
        url, media_type, data = split_data_url(part.pop("image_url", None))
        return Media("image", url, data, media_type, _string(part, "file_id"), detail=_string(part, "detail"), bag=part)
    if kind == "input_file":
        del part["type"]
        file_id, url, data, filename = (_string(part, key) for key in _FILE_KEYS)
        rest, media_type, split = split_data_url(data)
        return Media("document", url, split if rest is None else rest, media_type, file_id, filename, _string(part, "detail"), part)
    return Opaque(NAME, Raw(_encode(part)), kind)


def split_data_url(value: object) -> tuple[str | None, str | None, str | None]:
    """(URL, None, None) of any other string; (None, media type, base64 data) of a data URL."""
    found = _DATA_URL.match(value) if isinstance(value, str) else None
    if found is None:
        return (value if isinstance(value, str) else None), None, None
    return None, found[1], value[found.end() :]  # type: ignore[index]


def read_annotation(fields: Bag) -> Citation:
    if fields.get("type") != "url_citation":
        filename = fields.get("filename")
        return Citation("document", title=filename if isinstance(filename, str) else None, bag=fields)
    start, end = (fields.pop(key, None) for key in ("start_index", "end_index"))
    span = (start, end) if type(start) is int and type(end) is int else (None, None)
    return Citation("url", _string(fields, "url"), _string(fields, "title"), None, *span, fields)


def reasoning_text(item: Bag) -> str:
    """What a reasoning item tells of the thinking: the parts of its summary, else of its content."""
    texts = [
        part["text"]
        for key in ("summary", "content")
        for part in objects(item.get(key))
        if type(part.get("text")) is str
    ]
    return "\n\n".join(texts)


def _read_reasoning(item: Bag) -> Reasoning:
    text = reasoning_text(item)
    encrypted = item.get("encrypted_content")
    if type(encrypted) is not str or not encrypted:
        return Reasoning(text, bag=item)
    del item["encrypted_content"]
    sealed = unseal(encrypted)
    if sealed is not None:
        origin, proof = sealed
        if proof[:1] == "c":
            return Reasoning("", proof[1:], bag={CALL_PROOF: True}, origin=origin)
        key = "encrypted" if proof[:1] == "e" else "signature"
        return Reasoning(text, bag=item, origin=origin, **({key: proof[1:]} if len(proof) > 1 else {}))
    signature, whole = reasoning_proof(item.get("id"), encrypted, bool(text))
    return Reasoning(text, signature, whole, item, NAME)


def reasoning_proof(item_id: object, encrypted: str, has_text: bool) -> tuple[str | None, str | None]:
    """(signature, encrypted) of the neutral form. The item's id goes with its content: the provider checks that they belong together."""
    proof = f"{item_id or ''}:{encrypted}"
    return (proof, None) if has_text else (None, proof)


def _read_call(item: Bag, kind: str, path: str) -> ToolCall:
    del item["type"]
    call_id, name, given = item.pop("call_id", None), item.pop("name", None), item.pop(CALL_INPUTS[kind], None)
    if type(call_id) is not str or type(name) is not str:
        raise ClientError(f"{path} must have a call_id and a name (strings)", param=path)
    return ToolCall(call_id, name, as_text(given), "function" if kind == "function_call" else "custom", item)


def _read_output(item: Bag, path: str) -> ToolResult:
    call_id, output = item.pop("call_id", None), item.pop("output", None)
    if type(call_id) is not str:
        raise ClientError(f"{path}.call_id must be the call_id of the call that it answers", param=f"{path}.call_id")
    return ToolResult(call_id, _read_content(output, f"{path}.output"), is_plain=type(output) is str, name=_string(item, "name"), bag=item)


# --- neutral → wire -------------------------------------------------------------------------------------------------------


class ItemWriter:
    """Writes messages in order. `reply_id`: the items are a reply's output, which have ids and a status; else a request's input."""

    def __init__(self, reply_id: str | None = None):
        self._reply_id = reply_id
        self._custom_calls: set[str] = set()  # ids
        self._legacy_id = ""
        self.items: list[Any] = []

    def write_message(self, message: Message) -> None:
        role = "user" if message.role in ("tool", "function") else message.role
        if message.role == "function":  # of before tools: it answers the call before it
            message = Message("tool", [ToolResult(self._legacy_id, message.parts, name=message.name)])
        for group in _groups(message.parts):
            part = group[0]
            if _is_content(part):
                self._write_content(role, group, message)
            elif type(part) is Reasoning:
                self._write_reasoning(part)
            elif type(part) is ToolCall:
                self._write_call(part)
            elif type(part) is ToolResult:
                self._write_result(part)
            elif type(part) is Opaque:
                self.items.append(part.raw)

    def mint(self, prefix: str) -> str:
        return f"{prefix}_{(self._reply_id or '').removeprefix('resp_')}_{len(self.items)}"

    def _write_content(self, role: str, parts: Sequence[Part], message: Message) -> None:
        own = parts[0].bag.get(ITEM) if type(parts[0]) is not Opaque else None
        item: Bag = {"type": "message"} if own is None else own
        item = {**item, "role": role, **message.bag}
        is_output = role == "assistant"
        if self._reply_id is not None and own is None:
            item = {"id": self.mint("msg"), "type": "message", "status": "completed", "role": role}
        written = [write_part(part, is_output) for part in parts]
        is_bare = self._reply_id is None and len(written) == 1 and type(parts[0]) is Text and not _has_more(written[0])
        item["content"] = written[0]["text"] if is_bare and message.is_plain else written
        self.items.append(item)

    def _write_reasoning(self, part: Reasoning) -> None:
        if self._reply_id is None and not is_taken(part):
            return
        proof = part.signature or part.encrypted
        if part.bag:  # it came as an item: as it was
            encrypted = {"encrypted_content": proof.partition(":")[2]} if proof else {}
            self.items.append({"type": "reasoning", **part.bag, **encrypted})
            return
        self.items.append(reasoning_item(part, self.mint("rs")))

    def _write_call(self, call: ToolCall) -> None:
        is_custom = call.kind == "custom"
        call_id = call.id
        if call.kind == LEGACY_CALL:
            self._legacy_id = call_id = mint_call_id("", len(self.items), 0)
        if is_custom:
            self._custom_calls.add(call_id)
        if self._reply_id is not None and call.signature is not None:
            self.items.append(call_proof_item(call.origin, call.signature, self.mint("rs")))
        kind, key = ("custom_tool_call", "input") if is_custom else ("function_call", "arguments")
        item: Bag = {"type": kind, **call.bag, "call_id": call_id, "name": call.name, key: call.arguments}
        if self._reply_id is not None:
            item.setdefault("id", self.mint("ctc" if is_custom else "fc"))
            item.setdefault("status", "completed")
        self.items.append(item)

    def _write_result(self, result: ToolResult) -> None:
        kind = "custom_tool_call_output" if result.call_id in self._custom_calls else "function_call_output"
        written = [write_part(part, False) for part in result.parts if _is_content(part)]
        is_text = all(type(part) is Text for part in result.parts) and not any(map(_has_more, written))
        output = "".join(part["text"] for part in written) if is_text and (result.is_plain or not written) else written
        self.items.append({"type": kind, **result.bag, "call_id": result.call_id, "output": output})


def is_taken(part: Reasoning) -> bool:
    """Whether a provider takes it back: its own as it came, else with its proof."""
    if part.bag:
        return part.origin in ("", NAME)
    return part.origin == NAME and bool(part.signature or part.encrypted)


def _is_content(part: Part) -> bool:
    """Whether it stands inside a message item. Media and opaque parts that this format has no place for stand nowhere."""
    if type(part) is Opaque:
        return part.dialect == NAME and part.kind.startswith(("input_", "output_", "reasoning_text"))
    return type(part) is Text or type(part) is Refusal or (type(part) is Media and part.kind in ("image", "document"))


def _groups(parts: Sequence[Part]) -> Iterator[list[Part]]:
    """Parts that make one item: contents of one message item together, every other alone."""
    group: list[Part] = []
    for part in parts:
        is_content = _is_content(part)
        if not is_content and (type(part) is Media or (type(part) is Opaque and part.dialect != NAME)):
            continue  # `lost` says so
        if group and (not is_content or _begins_item(part)):
            yield group
            group = []
        if is_content:
            group.append(part)
        else:
            yield [part]
    if group:
        yield group


def _begins_item(part: Part) -> bool:
    return type(part) is not Opaque and ITEM in part.bag


def _has_more(written: Bag) -> bool:
    """Whether a text part says more than its text."""
    return any(value for key, value in written.items() if key not in ("type", "text"))


def reasoning_item(part: Reasoning, item_id: str) -> Bag:
    """A reasoning item made of foreign parts: what others must see again in its place is sealed."""
    proof = part.signature or part.encrypted
    if proof is not None:
        if part.origin == NAME:
            own_id, _, proof = proof.partition(":")
            item_id = own_id or item_id
        else:
            proof = seal(part.origin, ("e" if part.signature is None else "s") + proof)
    elif part.origin != NAME:
        proof = seal(part.origin or ELSEWHERE, "")
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    return {"id": item_id, "type": "reasoning", "summary": summary, "encrypted_content": proof}


def call_proof_item(origin: str, signature: str, item_id: str) -> Bag:
    """The proof of the thought behind a call, in an item that agents bring back in its place: a call's own has no field for it."""
    return {"id": item_id, "type": "reasoning", "summary": [], "encrypted_content": seal(origin, "c" + signature)}


def write_part(part: Part, is_output: bool) -> Any:
    if type(part) is Text:
        bag = {key: value for key, value in part.bag.items() if key != ITEM}
        fields: Bag = {"type": "output_text" if is_output else "input_text", "text": part.text}
        if is_output:
            fields["annotations"] = [note for each in part.citations if (note := write_annotation(each, part.text)) is not None]
        return fields | bag
    if type(part) is Refusal:
        return {"type": "refusal", "refusal": part.text, **{key: value for key, value in part.bag.items() if key != ITEM}}
    if type(part) is Opaque:
        return part.raw
    assert type(part) is Media
    data_url = None if part.data is None else part.data if part.media_type is None else f"data:{part.media_type};base64,{part.data}"
    if part.kind == "image":
        inside = {"image_url": part.url or data_url, "file_id": part.file_id, "detail": part.detail or "auto"}
        fields = {"type": "input_image"}
    else:
        filename = part.filename or ("document.pdf" if data_url is not None else None)  # data is refused without a name
        inside = {"file_url": part.url, "file_data": data_url, "file_id": part.file_id, "filename": filename, "detail": part.detail}
        fields = {"type": "input_file"}
    return fields | {key: value for key, value in inside.items() if value is not None} | part.bag


def write_annotation(citation: Citation, text: str) -> Bag | None:
    """None where this format has no place for it."""
    if citation.kind == "url" and citation.url is not None:
        start, end = citation.start, citation.end
        span = {"start_index": start or 0, "end_index": len(text) if end is None else end}
        return {"type": "url_citation", **citation.bag, **span, "title": citation.title or citation.url, "url": citation.url}
    return citation.bag if "type" in citation.bag else None
