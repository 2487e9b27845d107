"""Several choices of providers that make one at a time: one attempt, one hold and one row each, one reply of all."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from tests.conftest import Gateway, start_gateway, wait_until
from tests.http_host import Handler, serving

SETTINGS = """
[routing]
max_attempts = 1
[providers.claude]
dialect = "anthropic-messages"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "sk-of-the-provider"
[models."claude/claude-opus-4-1"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 2.0
"""
HELLO = [{"role": "user", "content": "hello"}]


class Provider:
    """Answers every message with its number; those in `failing` with an error. It waits for `together` requests before it answers any."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.failing: set[int] = set()
        self.barrier: threading.Barrier | None = None
        self.lock = threading.Lock()

    def take(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.bodies.append(body)
            number = len(self.bodies)
        if self.barrier is not None:
            self.barrier.wait(20)
        if number in self.failing:
            return 529, {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
        content = [{"type": "text", "text": f"answer {number}"}]
        usage = {"input_tokens": 10, "output_tokens": number}
        return 200, {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": "end_turn", "usage": usage}


@pytest.fixture
def provider() -> Provider:
    return Provider()


@pytest.fixture
def gateway(provider: Provider, tmp_path) -> Iterator[Gateway]:
    class Claude(Handler):
        def do_POST(self) -> None:
            status, answer = provider.take(json.loads(self.body()))
            self.answer(status, "application/json", json.dumps(answer).encode())

    with serving(Claude) as port:
        running = start_gateway(tmp_path, SETTINGS.format(port=port))
        yield running
        running.kill()


def ask(gateway: Gateway, **more: Any) -> tuple[int, dict[str, str], Any]:
    return gateway.request("POST", "/v1/chat/completions", {"model": "claude/claude-opus-4-1", "max_tokens": 50, "messages": HELLO, **more})


def rows(gateway: Gateway, count: int) -> tuple[list[Any], list[Any]]:
    """(attempts, calls) of the ledger, once `count` attempts are in it."""

    def read() -> tuple[list[Any], list[Any]] | None:
        gateway.request("GET", "/v1/usage/recent?limit=1")
        with closing(sqlite3.connect(f"file:{gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            attempts = database.execute("SELECT * FROM attempts ORDER BY number").fetchall()
            calls = database.execute("SELECT * FROM calls").fetchall()
        return (attempts, calls) if len(attempts) == count and calls else None

    return wait_until(read)


def test_each_choice_is_an_attempt_of_its_own_and_the_call_is_one(gateway: Gateway, provider: Provider) -> None:
    provider.barrier = threading.Barrier(3)  # passes only if all three are under way at once
    status, headers, body = ask(gateway, n=3)
    assert status == 200
    assert sorted(choice["message"]["content"] for choice in body["choices"]) == ["answer 1", "answer 2", "answer 3"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert all("n" not in sent for sent in provider.bodies)
    assert (body["usage"]["prompt_tokens"], body["usage"]["completion_tokens"]) == (30, 6)
    assert "x-aig-warning" not in headers
    assert headers["x-aig-attempts"] == "3"
    attempts, [call] = rows(gateway, 3)
    assert [row["number"] for row in attempts] == [1, 2, 3]
    assert len({row["attempt_id"] for row in attempts}) == 3
    assert {row["hold_nanousd"] > 0 for row in attempts} == {True}
    assert sum(row["cost_nanousd"] for row in attempts) == call["cost_nanousd"] == 30 * 1000 + 6 * 2000
    assert (call["attempts"], call["status"]) == (3, 200)


def test_what_came_is_given_and_what_failed_is_said(gateway: Gateway, provider: Provider) -> None:
    provider.failing = {2}
    status, headers, body = ask(gateway, n=3)
    assert (status, len(body["choices"]), [choice["index"] for choice in body["choices"]]) == (200, 2, [0, 1])
    assert 'clamped;param="n";from=3;to=2' in headers["x-aig-warning"]
    attempts, [call] = rows(gateway, 3)
    assert sorted(row["end"] for row in attempts) == ["complete", "complete", "failed"]
    assert call["cost_nanousd"] == sum(row["cost_nanousd"] for row in attempts)


def test_none_at_all_is_the_providers_error(gateway: Gateway, provider: Provider) -> None:
    provider.failing = {1, 2}
    status, _, body = ask(gateway, n=2)
    assert status >= 500
    assert body["error"]["attempts"] == 2
    _, [call] = rows(gateway, 2)
    assert call["status"] == status
