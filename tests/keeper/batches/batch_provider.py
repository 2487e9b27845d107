"""A provider with batch endpoints of both families, on a loopback port: takes batches, does their lines when told, keeps what it saw."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

HEAD = "HTTP/1.1 {} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n"


class BatchProvider:
    """`is_over`: batches end at once. `loses_reply`: so many submissions are taken, and their reply is lost. `refuses`: statuses of the next
    requests. `does`: custom ids of lines that were done, how often."""

    def __init__(self) -> None:
        self.is_over = True
        self.loses_reply = 0
        self.refuses: list[int] = []
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.does: Counter[str] = Counter()
        self.bodies: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 26)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"

    def close(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length: ")[1].split("\r\n")[0]) if "content-length: " in head else 0
            body = await reader.readexactly(length)
            method, target, _ = head.split(" ", 2)
            self.asked.append(f"{method} {target}")
            status, reply = (self.refuses.pop(0), {"error": {"message": "no", "type": "x"}}) if self.refuses else self._answer(method, target[3:], body)
            is_submission = method == "post" and target in ("/v1/batches", "/v1/messages/batches")
            if is_submission and status == 200 and self.loses_reply:
                self.loses_reply -= 1
                return
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            writer.write(HEAD.format(status, len(data)).encode() + data)
            await writer.drain()
        finally:
            writer.close()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        path, _, _ = path.partition("?")
        parts = path.strip("/").split("/")
        if parts[0] == "files":
            if method == "post":
                name = f"file-up{len(self.files)}"
                self.files[name] = body.split(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
                return 200, {"id": name}
            return 200, self.files[parts[1]]
        family = "anthropic" if parts[0] == "messages" else "openai"
        rest = parts[2:] if family == "anthropic" else parts[1:]
        if method == "post" and not rest:
            return 200, self._take(family, json.loads(body))
        if not rest:
            return 200, {"data": [self._state(name) for name, each in self.batches.items() if each["family"] == family][::-1]}
        if rest[0] not in self.batches:
            return 404, {"error": {"message": "gone"}}
        if rest[1:] == ["cancel"]:
            self.batches[rest[0]]["cancelled"] = True
        if rest[1:] == ["results"]:
            return 200, self._results(rest[0])[0]
        return 200, self._state(rest[0])

    def _take(self, family: str, asked: dict[str, Any]) -> dict[str, Any]:
        name = f"batch_{family}{len(self.batches)}"
        if family == "anthropic":
            lines = [(each["custom_id"], each["params"]) for each in asked["requests"]]
        else:
            lines = [(each["custom_id"], each["body"]) for each in map(json.loads, self.files[asked["input_file_id"]].splitlines())]
        self.batches[name] = {"family": family, "lines": lines, "metadata": asked.get("metadata"), "cancelled": False, "results": None}
        return self._state(name)

    def _state(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        is_over = self.is_over or batch["cancelled"]
        if batch["family"] == "anthropic":
            return {"id": name, "processing_status": "ended" if is_over else "in_progress"}
        found = {"id": name, "status": "in_progress", "metadata": batch["metadata"]}
        if is_over:
            output, errors = self._results(name)
            self.files |= {f"{name}-output": output, f"{name}-errors": errors}
            found |= {"status": "cancelled" if batch["cancelled"] else "completed", "output_file_id": f"{name}-output", "error_file_id": f"{name}-errors"}
        return found

    def _results(self, name: str) -> tuple[bytes, bytes]:
        batch = self.batches[name]
        if batch["results"] is None:
            output, errors = [], []
            for place, (custom_id, body) in enumerate(batch["lines"]):
                if batch["cancelled"] and place >= 2:
                    (output if batch["family"] == "anthropic" else errors).append(_undone(batch["family"], custom_id))
                    continue
                self.does[custom_id] += 1
                self.bodies[custom_id] = body
                line, is_good = _done(batch["family"], custom_id, body)
                (output if is_good or batch["family"] == "anthropic" else errors).append(line)
            batch["results"] = tuple(b"".join(json.dumps(each).encode() + b"\n" for each in lines) for lines in (output, errors))
        return batch["results"]


def _undone(family: str, custom_id: str) -> dict[str, Any]:
    if family == "anthropic":
        return {"custom_id": custom_id, "result": {"type": "canceled"}}
    return {"custom_id": custom_id, "response": None, "error": {"code": "batch_cancelled", "message": "cancelled"}}


def _done(family: str, custom_id: str, body: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """10 tokens in, 20 out; a prompt that says "bad" is refused."""
    said = body["messages"][-1]["content"]
    if family == "anthropic":
        if said == "bad":
            error = {"type": "error", "error": {"type": "invalid_request_error", "message": "bad prompt"}}
            return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}, False
        message = {
            "id": "msg_1", "type": "message", "role": "assistant", "model": body["model"], "content": [{"type": "text", "text": f"answer to {said}"}],
            "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 20},
        }  # fmt: skip
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": message}}, True
    if said == "bad":
        response = {"status_code": 400, "request_id": "x", "body": {"error": {"message": "bad prompt", "type": "invalid_request_error"}}}
        return {"id": "r", "custom_id": custom_id, "response": response, "error": None}, False
    reply = {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": body["model"],
        "choices": [{"index": 0, "message": {"role": "assistant", "content": f"answer to {said}"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
    }  # fmt: skip
    return {"id": "r", "custom_id": custom_id, "response": {"status_code": 200, "request_id": "x", "body": reply}, "error": None}, True
