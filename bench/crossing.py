"""`python -m bench.crossing`: what it costs that client and provider speak different formats, beside the same client on a provider of its own.

CPU of the worker alone, by its own clock, over rounds that take each side in turn: what else runs on the machine disturbs both alike, and
the median of the rounds' differences is told. The provider is a replayer of this file; it and the client of the load are not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from bench.machine import BINARIES, HERE, cpu_s
from bench.results import table
from bench.servers import LOAD_CPU, ROOT_KEY, Gateway, free_port

CALLS, STREAMS, LARGE = 400, 30, 12  # of each side in a round
CHUNKS = 400
MOST_US, MOST_CHUNK_US = 150.0, 6.0
LARGE_BYTES = 5 << 20
SLUGS = {"openai-chat": "c", "openai-responses": "r", "anthropic-messages": "a", "gemini": "g"}
PATHS = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses", "anthropic-messages": "/v1/messages", "gemini": "/v1beta/models/{}:{}"}
CROSSINGS = (
    ("openai-chat", "anthropic-messages"), ("openai-chat", "gemini"), ("openai-chat", "openai-responses"), ("anthropic-messages", "openai-chat"),
    ("openai-responses", "anthropic-messages"), ("gemini", "openai-chat"),
)  # fmt: skip
TEXT = "A gateway sits between clients and model providers, checks keys, applies limits and keeps an account of use."
WORD = " token of some text"


# --- what the provider says ---------------------------------------------------------------------------------------------------------


def _replies() -> dict[str, tuple[bytes, bytes]]:
    """Format → (a plain reply, a stream as the bodies of its events)."""
    usage = {"prompt_tokens": 212, "completion_tokens": 100, "total_tokens": 312}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": None, "stop_sequence": None}
    counts = {"input_tokens": 212, "output_tokens": 100}
    item = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant"}
    response = {"id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "error": None}
    numbered = iter(range(10_000_000))

    def chat(delta: dict, finish: str | None = None) -> bytes:
        return _data({**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]})

    def event(kind: str, **fields: object) -> bytes:
        number = {"sequence_number": next(numbered)} if kind.startswith("response.") else {}
        return f"event: {kind}\n".encode() + _data({"type": kind, **number, **fields})

    def whole(text: str) -> list:
        return [{**item, "content": [{"type": "output_text", "text": text, "annotations": []}]}]

    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    spent = {**counts, "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 312}
    counted = {"promptTokenCount": 212, "candidatesTokenCount": 100, "totalTokenCount": 312}
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT, "refusal": None}, "logprobs": None, "finish_reason": "stop"}

    def candidate(text: str, **more: object) -> dict:
        return {"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}

    def gemini(text: str, **more: object) -> bytes:
        return _data({"candidates": [candidate(text, **more)], "usageMetadata": counted, "modelVersion": "m", "responseId": "r"})

    return {
        "openai-chat": (
            _json({**head, "object": "chat.completion", "choices": [choice], "usage": usage}),
            [chat({"role": "assistant", "content": ""}), *[chat({"content": WORD})] * CHUNKS, chat({}, "stop"), _data({**head, "choices": [], "usage": usage}), b"data: [DONE]\n\n"],
        ),
        "openai-responses": (
            _json({**response, "output": whole(TEXT), "usage": spent}),
            [
                event("response.created", response={**response, "status": "in_progress", "output": [], "usage": None}),
                event("response.output_item.added", output_index=0, item={**item, "status": "in_progress", "content": []}),
                event("response.content_part.added", **place, part={"type": "output_text", "text": "", "annotations": []}),
                *[event("response.output_text.delta", **place, delta=WORD, logprobs=[]) for _ in range(CHUNKS)],
                event("response.output_text.done", **place, text=WORD * CHUNKS, logprobs=[]),
                event("response.output_item.done", output_index=0, item=whole(WORD * CHUNKS)[0]),
                event("response.completed", response={**response, "output": whole(WORD * CHUNKS), "usage": spent}),
            ],
        ),
        "anthropic-messages": (
            _json({**message, "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn", "usage": counts}),
            [
                event("message_start", message={**message, "content": [], "usage": {**counts, "output_tokens": 1}}),
                event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
                *[event("content_block_delta", index=0, delta={"type": "text_delta", "text": WORD})] * CHUNKS,
                event("content_block_stop", index=0),
                event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=counts),
                event("message_stop"),
            ],
        ),
        "gemini": (
            _json({"candidates": [candidate(TEXT, finishReason="STOP")], "usageMetadata": counted, "modelVersion": "m", "responseId": "r"}),
            [*[gemini(WORD)] * CHUNKS, gemini("", finishReason="STOP")],
        ),
    }  # type: ignore[return-value]  # fmt: skip


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _data(value: object) -> bytes:
    return b"data: " + _json(value) + b"\n\n"


def _replay(port: int) -> None:
    """A process of its own. The path of a request says its format, and its body (or path) whether it is to stream."""
    os.sched_setaffinity(0, {LOAD_CPU})
    replies = {form: (_plain(reply), _streamed(events)) for form, (reply, events) in _replies().items()}  # type: ignore[arg-type]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await _head(reader):
            body = await reader.readexactly(_length(head))
            path = head.split(b" ", 2)[1]
            form = next((form for form, end in _ENDS if end in path), "gemini")
            is_stream = b":stream" in path or b'"stream":true' in body[-4096:].replace(b" ", b"") or b'"stream":true' in body[:4096].replace(b" ", b"")
            for piece in replies[form][is_stream]:
                writer.write(piece)
            await writer.drain()
        writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", port, limit=1 << 16)
        await server.serve_forever()

    asyncio.run(serve())


_ENDS = (("openai-chat", b"/chat/completions"), ("openai-responses", b"/responses"), ("anthropic-messages", b"/messages"))


def _plain(body: bytes) -> list[bytes]:
    return [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)]


def _streamed(events: list[bytes], group: int = 10) -> list[bytes]:
    pieces = [b"".join(events[at : at + group]) for at in range(0, len(events), group)]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return [head, *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), b"0\r\n\r\n"]


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return b""


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    return 0


# --- what the client asks -----------------------------------------------------------------------------------------------------------


def _request(form: str, model: str, *, is_stream: bool, image: str = "") -> bytes:
    """A call of about 1 KB, or with an image of `image`, whole with its head."""
    system, question = "You are terse. " + "Answer in one line. " * 20, "What is a gateway? " + "Say it plainly. " * 16
    url = f"data:image/png;base64,{image}"
    chat: list = [{"type": "text", "text": question}, *([{"type": "image_url", "image_url": {"url": url}}] if image else [])]
    source = {"type": "base64", "media_type": "image/png", "data": image}
    blocks: list = [{"type": "text", "text": question}, *([{"type": "image", "source": source}] if image else [])]
    parts: list = [{"text": question}, *([{"inlineData": {"mimeType": "image/png", "data": image}}] if image else [])]
    items: list = [{"type": "input_text", "text": question}, *([{"type": "input_image", "image_url": url, "detail": "auto"}] if image else [])]
    streams = {"stream": True} if is_stream else {}
    body = {
        "openai-chat": {"model": model, "messages": [{"role": "system", "content": system}, {"role": "user", "content": chat}], "max_tokens": 256, **streams},
        "anthropic-messages": {"model": model, "max_tokens": 256, "system": system, "messages": [{"role": "user", "content": blocks}], **streams},
        "openai-responses": {"model": model, "instructions": system, "input": [{"role": "user", "content": items}], "store": False, "max_output_tokens": 256, **streams},
        "gemini": {"systemInstruction": {"parts": [{"text": system}]}, "contents": [{"role": "user", "parts": parts}], "generationConfig": {"maxOutputTokens": 256}},
    }[form]  # fmt: skip
    action = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    path, data = PATHS[form].format(model, action), _json(body)
    head = f"POST {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {ROOT_KEY}\r\nanthropic-version: 2023-06-01\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


async def _load(port: int, request: bytes, calls: int, connections: int = 8) -> None:
    """Every answer must be 200 and whole."""

    async def one(share: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
        for _ in range(share):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"a call failed: {head!r} {await reader.read(2000)!r}")
            if length := _length(head):
                await reader.readexactly(length)
            else:
                while size := int(await reader.readline(), 16):
                    await reader.readexactly(size + 2)
                await reader.readline()
        writer.close()

    await asyncio.gather(*(one(calls // connections) for _ in range(connections)))


# --- measuring --------------------------------------------------------------------------------------------------------------------------


class Added(NamedTuple):
    """Microseconds of the worker's CPU that a crossing adds to a call, or to a chunk."""

    client: str
    provider: str
    what: str
    same_us: float
    added_us: float
    most_us: float | None


@contextmanager
def _gateway(folder: Path) -> Iterator[Gateway]:
    port = free_port()
    replayer = multiprocessing.get_context("spawn").Process(target=_replay, args=(port,), daemon=True)
    replayer.start()
    settings = "".join(
        f'\n[providers.{slug}]\ndialect = "{form}"\nbase_url = "http://127.0.0.1:{port}/{"v1beta" if form == "gemini" else "v1"}"\nunpriced = "allow"\n'
        for form, slug in SLUGS.items()
    )
    try:
        with Gateway(folder, f"http://127.0.0.1:{port}/v1", settings) as gateway:
            yield gateway
    finally:
        replayer.terminate()
        replayer.join()


def _worker_us(gateway: Gateway, request: bytes, calls: int) -> float:
    before = cpu_s(gateway.workers())
    asyncio.run(_load(gateway.port, request, calls))
    return 1e6 * (cpu_s(gateway.workers()) - before) / calls


def _compare(gateway: Gateway, sides: tuple[bytes, bytes], calls: int, rounds: int) -> tuple[float, float]:
    """(microseconds of a call on the client's own format, what the other adds): medians over rounds that begin with either in turn."""
    same, added = [], []
    for number in range(rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        spent = dict(zip(order, (_worker_us(gateway, sides[place], calls) for place in order), strict=True))
        if number:  # the first warms up
            same.append(spent[0])
            added.append(spent[1] - spent[0])
    return statistics.median(same), statistics.median(added)


def measure(rounds: int) -> list[Added]:
    image = base64.b64encode(os.urandom(LARGE_BYTES * 3 // 4)).decode()
    rows = []
    BINARIES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=BINARIES) as name, _gateway(Path(name)) as gateway:
        for client, provider in CROSSINGS:
            models = (f"{SLUGS[client]}/m", f"{SLUGS[provider]}/m")

            def pair(models: tuple[str, str] = models, form: str = client, **more: object) -> tuple[bytes, bytes]:
                one, two = (_request(form, model, **{"is_stream": False, **more}) for model in models)  # type: ignore[arg-type]
                return one, two

            same, added = _compare(gateway, pair(), CALLS, rounds)
            rows.append(Added(client, provider, "plain call of 1 KB", same, added, MOST_US))
            same, added = _compare(gateway, pair(is_stream=True), STREAMS, rounds)
            rows.append(Added(client, provider, "chunk of a stream", same / CHUNKS, added / CHUNKS, MOST_CHUNK_US))
            same, added = _compare(gateway, pair(image=image), LARGE, rounds)
            rows.append(Added(client, provider, "call with an image of 5 MB", same, added, None))
            sys.stderr.write(f"{client} to {provider} is measured\n")
    return rows


def report(rows: list[Added]) -> str:
    missed = [row for row in rows if row.most_us is not None and row.added_us > row.most_us]
    verdict = "Every target is met." if not missed else f"{len(missed)} targets are missed."
    cells = [
        (
            f"{row.client} → {row.provider}", row.what, f"{row.same_us:.1f}", f"{row.added_us:+.1f}", f"{(row.same_us + row.added_us) / row.same_us:.2f} ×",
            "–" if row.most_us is None else f"≤ {row.most_us:g}" + ("" if row.added_us <= row.most_us else " **missed**"),
        )
        for row in rows
    ]  # fmt: skip
    head = ("client → provider", "for each", "provider of its own format, µs", "crossing adds, µs", "ratio", "target, µs")
    return f"# What crossing costs\n\nCPU of the worker (`python -m bench.crossing`). {verdict}\n\n{table(head, cells)}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.crossing", description="Measure what it costs to cross from one format to another.", allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=9, help="rounds of each pair (9)")
    parser.add_argument("--keep", action="store_true", help="write bench/crossing.md")
    options = parser.parse_args()
    page = report(measure(options.rounds))
    if options.keep:
        (HERE / "crossing.md").write_text(page)
    sys.stdout.write(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
