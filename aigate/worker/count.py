"""Usage that no provider reported: counted with the model's own tokenizer where we have it, else estimated from bytes.

Tokenizers are loaded at their first use and run in a thread, never on the event loop: this is the rare way (a provider without usage,
a stream its client left), and a vocabulary costs tens of megabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from aigate.core.call import Call
from aigate.core.neutral import Reply
from aigate.core.target import Target
from aigate.core.usage import COUNTED, ESTIMATED, REPORTED, Usage
from aigate.core.words import MESSAGE_OVERHEAD, count_words, message_texts

_PROMPTS = ("messages", "contents", "input", "prompt", "instructions")
BYTES_PER_TOKEN = 4  # English text under byte-pair vocabularies; only for rows marked `estimated`


def load_tokenizer(name: str) -> Callable[[str], int] | None:
    if name == "words":
        return count_words
    if name in ("o200k", "cl100k"):
        import bpe_openai

        encode = bpe_openai.get_encoding(name + "_base").encode_ordinary
        return lambda text: len(encode(text))
    return None


def input_texts(call: Call) -> list[str]:
    """The texts of a call, one entry a message or input; tool definitions and media are not text."""
    if "messages" in call.pairs:
        messages = msgspec.json.decode(call.pairs["messages"])
        return message_texts(message for message in messages if isinstance(message, dict))
    if "contents" in call.pairs:  # the Gemini format
        contents = msgspec.json.decode(call.pairs["contents"])
        return message_texts({"content": content.get("parts")} for content in contents if isinstance(content, dict))
    content = msgspec.json.decode(call.pairs.get("input") or call.pairs.get("prompt", b"[]"))
    if isinstance(content, list) and content and isinstance(content[0], dict):  # items of the Responses format
        instructions = msgspec.json.decode(call.pairs.get("instructions", b"null"))
        return message_texts([{"content": instructions}, *(item for item in content if isinstance(item, dict))])
    return [text for text in (content if isinstance(content, list) else [content]) if isinstance(text, str)]


def _messages(call: Call) -> int:
    return len(msgspec.json.decode(call.pairs["messages"], type=list[msgspec.Raw])) if "messages" in call.pairs else 0


def count_text(call: Call, target: Target, text: str, more_bytes: int) -> tuple[Usage, str]:
    """Usage of a call that produced `text` and `more_bytes` of text beyond it, and how it was obtained."""
    count = load_tokenizer(target.quirks.tokenizer)
    try:
        inputs = input_texts(call)
    except msgspec.DecodeError:  # a value that only its provider could read; the tokens were used all the same
        inputs = [str(call.pairs[key], "utf-8", "replace") for key in _PROMPTS if key in call.pairs]
    overhead = MESSAGE_OVERHEAD * _messages(call)
    if count is None or more_bytes:
        in_bytes = sum(len(part.encode(errors="replace")) for part in inputs)
        out_bytes = len(text.encode(errors="replace")) + more_bytes
        return Usage(-(-in_bytes // BYTES_PER_TOKEN) + overhead, -(-out_bytes // BYTES_PER_TOKEN)), ESTIMATED
    return Usage(sum(map(count, inputs)) + overhead, count(text)), COUNTED


async def count_usage(call: Call, target: Target, text: str, more_bytes: int) -> tuple[Usage, str]:
    """`count_text` in a thread."""
    return await asyncio.get_running_loop().run_in_executor(None, count_text, call, target, text, more_bytes)


async def believed_usage(call: Call, target: Target, reported: Usage | None, text: str, more_bytes: int) -> tuple[Usage, str]:
    """What to settle by, and how it was obtained: what is reported, unless that knows nothing of the text there is (no usage at all, one
    of zeros, one of the prompt alone from before a stream broke off)."""
    if reported is not None and (reported.output_tokens or not (text or more_bytes)):
        return reported, REPORTED
    counted, how = await count_usage(call, target, text, more_bytes)
    if reported is not None and reported.input_tokens:
        counted = msgspec.structs.replace(reported, output_tokens=counted.output_tokens)
    return counted, how


def reply_text(reply: Reply) -> str:
    """The generated text of a neutral reply, reasoning and tool arguments included: what a tokenizer would have produced."""
    parts: list[str] = []
    for choice in reply.choices:
        for part in choice.parts:
            parts.append(getattr(part, "text", None) or getattr(part, "arguments", ""))
    return "".join(parts)
