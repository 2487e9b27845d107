"""What a recording must look like to the client and in the ledger: our own reading of it, apart from the code under test.

Documented changes only: `model` is the slug asked for, `usage.cost` is there, reasoning is in `reasoning_content` whatever the provider
calls it, content is one string, every tool call has an id, a type and arguments, padding is gone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

PADDING = ("obfuscation", "p")
MINTED = "(any id)"


def client_reply(reply: dict[str, Any], slug: str) -> dict[str, Any]:
    """A recorded plain reply as the client must get it, but for its usage."""
    reply = {key: value for key, value in reply.items() if key not in (*PADDING, "usage")}
    if "choices" in reply:
        reply["choices"] = [{**choice, "message": client_message(choice["message"])} for choice in reply["choices"]]
    return {**reply, "model": slug}


def client_message(message: dict[str, Any]) -> dict[str, Any]:
    message = dict(message)
    text, thought = split(message)
    if thought is not None:
        message.pop("reasoning", None)
        message["reasoning_content"] = thought
    if "content" in message:
        message["content"] = text
    if message.get("tool_calls"):
        message["tool_calls"] = [client_call(call) for call in message["tool_calls"]]
    return message


def client_call(call: dict[str, Any]) -> dict[str, Any]:
    function = {"arguments": "", **call["function"]}
    return {"type": "function", **call, "id": call["id"] or MINTED, "function": function}


def split(message: dict[str, Any]) -> tuple[str | None, str | None]:
    """(text, reasoning) of a message or delta, whatever the provider's way of keeping them apart."""
    content, thought = message.get("content"), message.get("reasoning_content") or message.get("reasoning")
    if isinstance(content, list):
        pieces = [piece["text"] for part in content if part["type"] == "thinking" for piece in part["thinking"]]
        thought = "".join(pieces) if pieces else thought
        content = "".join(part["text"] for part in content if part["type"] == "text")
    return (content, thought) if thought is not None or content is None else split_tags(content)


def split_tags(content: str) -> tuple[str, str | None]:
    if not content.lstrip().startswith("<think>"):
        return content, None
    thought, _, text = content.lstrip().removeprefix("<think>").partition("</think>")
    return text, thought


def fold(events: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """choice index → all that its deltas say."""
    choices: dict[int, dict[str, Any]] = {}
    for event in events:
        for choice in event.get("choices") or []:
            folded = choices.setdefault(choice["index"], {"text": "", "thought": "", "refusal": "", "calls": {}, "finish_reason": None})
            delta = choice.get("delta") or {}
            text, thought = (delta.get("content"), None) if isinstance(delta.get("content"), str) else split(delta)
            folded["text"] += text or ""
            folded["thought"] += thought or delta.get("reasoning_content") or delta.get("reasoning") or ""
            folded["refusal"] += delta.get("refusal") or ""
            folded["finish_reason"] = choice.get("finish_reason") or folded["finish_reason"]
            for call in delta.get("tool_calls") or []:
                known = folded["calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                known["id"] += call.get("id") or ""
                for key, value in call["function"].items():
                    known[key] += value or ""
    for folded in choices.values():
        if not folded["thought"]:
            folded["text"], folded["thought"] = split_tags(folded["text"])
    return {index: {key: value or None for key, value in folded.items()} for index, folded in choices.items()}


def stream_usage(events: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """The last usage that the stream reports, wherever it sits."""
    found = None
    for event in events:
        found = event.get("usage") or (event.get("x_groq") or {}).get("usage") or found
    return found


def client_usage(usage: dict[str, Any], cost: Any) -> dict[str, Any]:
    """The provider's own numbers, those it leaves out or spells otherwise in OpenAI's places, and the cost."""
    tokens = ledger_tokens(usage)
    expected = {**usage, "cost": cost}
    if tokens["cached_tokens"]:
        expected["prompt_tokens_details"] = {"cached_tokens": tokens["cached_tokens"], **(usage.get("prompt_tokens_details") or {})}
    return expected


def ledger_tokens(usage: dict[str, Any]) -> dict[str, int]:
    """The ledger's token columns. A total that is more than its parts tells of reasoning that completion_tokens leaves out."""
    inside, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    prompt, completion = usage["prompt_tokens"], usage.get("completion_tokens") or 0
    hidden = max(0, usage["total_tokens"] - prompt - completion)
    cached = inside.get("cached_tokens") or usage.get("prompt_cache_hit_tokens") or usage.get("cached_tokens")
    return {
        "input_tokens": prompt,
        "output_tokens": completion + hidden,
        "cached_tokens": cached or usage.get("num_cached_tokens") or 0,
        "cache_write_tokens": inside.get("cache_write_tokens") or 0,
        "reasoning_tokens": min(made.get("reasoning_tokens") or usage.get("reasoning_tokens") or hidden, completion + hidden),
        "audio_input_tokens": inside.get("audio_tokens") or 0,
        "audio_output_tokens": made.get("audio_tokens") or 0,
    }


def with_minted_ids(reply: dict[str, Any], expected: dict[str, Any]) -> dict[str, Any]:
    """`expected` with the ids that the gateway made in place of missing ones, provided that it made any."""
    text = json.dumps(expected)
    for choice in reply.get("choices") or []:
        for call in choice["message"].get("tool_calls") or []:
            if call["id"].startswith("call_"):
                text = text.replace(json.dumps(MINTED), json.dumps(call["id"]), 1) if MINTED in text else text
    return json.loads(text)
