"""Recorded traffic of the Anthropic Messages format, and what a message means by a reading of our own."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects import DIALECTS
from tests.dialects.recorded import FOLDER, target

MESSAGES = DIALECTS["anthropic-messages"]


class Head:
    path, query = "/v1/messages", ""

    def __init__(self, **headers: str):
        self.headers = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}


def messages_target(model: str = "claude-test", **facts: Any) -> Target:
    return target(**facts, upstream_model=model, dialect="anthropic-messages")


def call_of(**fields: Any) -> Call:
    asked = {"model": "mock/m", "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}], **fields}
    return MESSAGES.read_call(json.dumps(asked).encode(), "chat", Head())


@cache
def message_records() -> list[dict[str, Any]]:
    if not FOLDER:
        return []
    lines = (line for path in sorted(Path(FOLDER).glob("*.jsonl")) for line in path.open(encoding="utf-8") if "/v1/messages" in line)
    records = [json.loads(line) for line in lines]
    return [record for record in records if record["path"].endswith("/v1/messages")]


def plain_messages() -> list[dict[str, Any]]:
    return [record for record in message_records() if record["status"] == 200 and not record["stream"]]


def message_streams() -> list[dict[str, Any]]:
    return [record for record in message_records() if record["status"] == 200 and record["stream"]]


def fold(out: bytes) -> dict[str, Any]:
    """The message that a stream of events adds up to, by a reading of our own; checks the grammar on the way."""
    message: dict[str, Any] = {}
    open_block: dict[str, Any] | None = None
    fragments: list[str] = []
    is_stopped = False
    for block in out.replace(b"\r\n", b"\n").split(b"\n\n"):
        if not block.strip():
            continue
        name, _, data = block.partition(b"\n")
        assert name.startswith(b"event: "), block
        assert data.startswith(b"data: "), block
        event = json.loads(data[6:])
        assert event["type"] == name[7:].decode()
        assert not is_stopped
        match event["type"]:
            case "message_start":
                assert not message
                message = dict(event["message"])
                assert message["content"] == []
                message["content"] = []
            case "content_block_start":
                assert open_block is None
                assert event["index"] == len(message["content"])
                open_block, fragments = dict(event["content_block"]), []
            case "content_block_delta":
                assert open_block is not None
                assert event["index"] == len(message["content"])
                _add(open_block, event["delta"], fragments)
            case "content_block_stop":
                assert open_block is not None
                if fragments:
                    open_block["input"] = json.loads("".join(fragments) or "{}")
                message["content"].append(open_block)
                open_block = None
            case "message_delta":
                message |= event["delta"]
                message["usage"] = {**message["usage"], **event["usage"]}
            case "message_stop":
                is_stopped = True
    assert is_stopped
    assert open_block is None
    return message


def _add(block: dict[str, Any], delta: dict[str, Any], fragments: list[str]) -> None:
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            if delta["partial_json"]:
                fragments.append(delta["partial_json"])
        case "citations_delta":
            block["citations"] = [*(block.get("citations") or []), delta["citation"]]
        case "compaction_delta":
            block |= {key: value for key, value in delta.items() if key != "type"}
