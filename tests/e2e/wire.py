"""What the end-to-end tests share: raw connections to a running gateway, its ledger rows, and a simulated provider of their own."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.conftest import Gateway, environment, wait_until
from tests.worker.raw_client import RawClient

PRICES = "input_usd_per_mtok = 0.15\noutput_usd_per_mtok = 0.60\ncached_input_usd_per_mtok = 0.075\n"


def chat(model: str, prompt: str = "Hello", **fields: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **fields}


def post(gateway: Gateway, body: object, *fields: str, path: str = "/v1/chat/completions", key: str | None = None) -> bytes:
    """A whole request as bytes; `body` may be bytes that are no JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    line, authorization = f"POST {path} HTTP/1.1", f"authorization: Bearer {key or gateway.key}"
    head = [line, "host: gateway", authorization, "content-type: application/json", f"content-length: {len(data)}", *fields, "", ""]
    return "\r\n".join(head).encode() + data


def get(gateway: Gateway, path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {gateway.key}\r\n\r\n".encode()


async def connect(gateway: Gateway) -> RawClient:
    address = urlsplit(gateway.url)
    return RawClient(*await asyncio.open_connection(address.hostname, address.port))


async def is_usable(gateway: Gateway, client: RawClient) -> bool:
    """Whether the connection goes on, and gives its caller its own answer."""
    status, _, body = await client.ask(post(gateway, chat("sim/echo", "still there")))
    return status == 200 and "still there" in said_in(body)


async def answered(gateway: Gateway) -> str:
    """The id of a call that went well."""
    client = await connect(gateway)
    status, head, _ = await client.ask(post(gateway, chat("sim/echo")))
    assert status == 200
    return request_id(head)


def error_of(body: bytes) -> dict[str, Any]:
    return json.loads(body)["error"]


def request_id(head: bytes) -> str:
    return head.split(b"\r\nx-request-id: ")[1].split(b"\r\n")[0].decode()


def events_of(body: bytes) -> list[Any]:
    """The data of a stream's events, decoded, with "[DONE]" as it is."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [line.decode() if line == b"[DONE]" else json.loads(line) for line in lines]


def said_in(body: bytes) -> str:
    """The text of a plain reply or of a whole stream."""
    if not body.startswith(b"data: "):
        return json.loads(body)["choices"][0]["message"]["content"]
    chunks = [event for event in events_of(body) if event != "[DONE]"]
    return "".join(choice["delta"].get("content") or "" for chunk in chunks for choice in chunk.get("choices", ()))


def rows(data_dir: Path, table: str, where: str = "1", *values: object) -> list[dict[str, Any]]:
    """Rows as the keeper has them on disk now, oldest attempt first."""
    with closing(sqlite3.connect(f"file:{data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
        database.row_factory = sqlite3.Row
        return [dict(row) for row in database.execute(f"SELECT * FROM {table} WHERE {where} ORDER BY 1, 2", values)]


def shipped(gateway: Gateway, call_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The row of a call and its attempts, once they are in the ledger."""
    gateway.request("GET", "/v1/usage")  # rows are shipped for who asks: that is quicker than to wait for the next batch
    found = wait_until(lambda: rows(gateway.data_dir, "calls", "call_id = ?", call_id))
    return found[0], sorted(rows(gateway.data_dir, "attempts", "call_id = ?", call_id), key=lambda row: row["number"])


@contextmanager
def running_sim(bill: Path) -> Iterator[str]:
    """A simulated provider that no gateway owns, so that it outlives them; its base URL."""
    command = [sys.executable, "-m", "aigate.sim", "--port", "0", "--bill", str(bill)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        try:
            assert process.stdout
            yield process.stdout.readline().split()[-1]
        finally:
            process.kill()


def read_bill(path: Path) -> tuple[list[str], dict[str, dict]]:
    """The attempts that the provider saw, in order, and the rows of its bill."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    seen = [line["attempt"] for line in lines if line["event"] == "seen"]
    return seen, {line["attempt"]: line for line in lines if line["event"] == "billed"}


def provider_config(name: str, base_url: str, models: Mapping[str, str] | tuple[str, ...] = (), *lines: str) -> str:
    """Settings of one provider whose `models` have a price."""
    head = [f"[providers.{name}]", 'dialect = "openai-chat"', f'base_url = "{base_url}"', 'models = ["*"]', "sends_attempt_id = true"]
    return "\n".join([*head, *lines]) + "\n" + "".join(f'[models."{name}/{model}"]\n{PRICES}' for model in models)


def run(test: Callable[[], Any], limit_s: float = 60.0) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(limit_s):
            return await test()

    return asyncio.run(limited())
