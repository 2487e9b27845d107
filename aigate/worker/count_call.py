"""Counting a prompt without a model call: by the provider where it has an endpoint for that, else by us, and marked so.

Nothing is bought and nothing is written to the journal. What a prompt of any surface says is read from its neutral form.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from aigate.core.neutral import Media, Part, Request, ToolCall, ToolResult
from aigate.core.target import Target
from aigate.core.usage import COUNTED, ESTIMATED
from aigate.core.words import MESSAGE_OVERHEAD
from aigate.worker.count import BYTES_PER_TOKEN, load_tokenizer

MEDIA_TOKENS = 1600  # one image of the size that most providers scale to; only ever part of an estimate


def prompt_texts(request: Request) -> tuple[list[str], int]:
    """(every text of a prompt, tool definitions included; how many media parts there are)."""
    texts: list[str] = []
    media = sum(_add_texts(message.parts, texts) for message in request.messages)
    for tool in request.tools or ():
        texts += (tool.name, tool.description or "", msgspec.json.encode(tool.parameters or tool.bag).decode())
    return texts, media


def _add_texts(parts: Sequence[Part], texts: list[str]) -> int:
    media = 0
    for part in parts:
        if type(part) is ToolResult:
            media += _add_texts(part.parts, texts)
        elif type(part) is ToolCall:
            texts += (part.name, part.arguments)
        elif type(part) is Media:
            media += 1
        else:
            texts.append(getattr(part, "text", ""))
    return media


def count_prompt(request: Request, target: Target) -> tuple[int, str]:
    """(tokens, how they were obtained)."""
    texts, media = prompt_texts(request)
    tokens = MESSAGE_OVERHEAD * len(request.messages) + MEDIA_TOKENS * media
    count = load_tokenizer(target.quirks.tokenizer)
    if count is None:
        return tokens - (-sum(len(text.encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN), ESTIMATED
    return tokens + sum(map(count, texts)), ESTIMATED if media else COUNTED


async def count_prompt_aside(request: Request, target: Target) -> tuple[int, str]:
    """The same in a thread: a vocabulary may have to be loaded, a prompt may be long."""
    return await asyncio.get_running_loop().run_in_executor(None, count_prompt, request, target)
