"""Batches through the real `openai` SDK and the command line, on a running gateway; kills at random points.

AIGATE_KILLS sets how many kills (default 4), AIGATE_SEED the seed.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.receiver import receiver
from tests.e2e.test_kills import victims_of
from tests.e2e.wire import chat, provider_config, read_bill, rows, running_sim
from tests.test_docs import run as run_as_reader
from tests.test_serve import is_gone

KILLS = int(os.environ.get("AIGATE_KILLS", "4"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
PATIENT = "[routing]\nretry_base_ms = 1\nbreaker_failures = 100000\n"


def line(custom_id: str, body: dict[str, Any], url: str = CHAT) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def jsonl(lines: list[Any]) -> bytes:
    return b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)


def client_of(gateway: Gateway, key: str | None = None, **options: Any) -> OpenAI:
    return OpenAI(**{"base_url": gateway.url + "/v1", "api_key": key or gateway.key, "max_retries": 0, **options})


def create(client: OpenAI, lines: list[Any], endpoint: str = CHAT, **options: Any) -> Any:
    uploaded = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    return client.batches.create(input_file_id=uploaded.id, endpoint=endpoint, completion_window="24h", **options)  # type: ignore[arg-type]


def ended(client: OpenAI, batch_id: str, limit_s: float = 60.0) -> Any:
    deadline = time.monotonic() + limit_s
    while (batch := client.batches.retrieve(batch_id)).status not in ENDED:
        assert time.monotonic() < deadline, batch
        time.sleep(0.05)
    return batch


def read(client: OpenAI, file_id: str | None) -> list[dict[str, Any]]:
    return [] if file_id is None else [json.loads(each) for each in client.files.content(file_id).text.splitlines()]


def test_openais_sdk_runs_a_batch_of_a_thousand_lines(gateway: Gateway) -> None:
    key = gateway.request("POST", "/v1/keys", {"name": "batch", "rate_limit_rpm": 10})[2]["key"]  # does not count for batches
    with client_of(gateway, key) as client:
        made = create(client, [line(f"q{n}", chat("sim/echo", f"question {n}")) for n in range(1000)], metadata={"job": "nightly"})
        assert made.status == "validating" and made.metadata == {"job": "nightly"}
        batch = ended(client, made.id)
        assert batch.status == "completed" and batch.error_file_id is None
        assert (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed) == (1000, 1000, 0)
        output = read(client, batch.output_file_id)
        assert {each["custom_id"] for each in output} == {f"q{n}" for n in range(1000)} and len(output) == 1000
        for each in output:
            assert each["error"] is None and each["response"]["status_code"] == 200
            number = each["custom_id"][1:]
            assert f"question {number}" in each["response"]["body"]["choices"][0]["message"]["content"]
        tokens = [each["response"]["body"]["usage"] for each in output]
        assert batch.usage.input_tokens == sum(each["prompt_tokens"] for each in tokens)
        assert batch.usage.output_tokens == sum(each["completion_tokens"] for each in tokens)
        month = gateway.request("GET", "/v1/usage", key=key)[2]
        assert month["requests"] == 1000 and month["cost_cents"] == pytest.approx(batch.model_dump()["cost_cents"])
        called = {each["response"]["request_id"] for each in output}
        assert called == {row["call_id"] for row in rows(gateway.data_dir, "calls", "call_id IN (" + ",".join("?" * 1000) + ")", *called)}
        assert [each.id for each in client.batches.list(limit=5)] == [batch.id]
        assert {each.purpose for each in client.files.list()} == {"batch", "batch_output"}
        assert client.files.retrieve(batch.output_file_id).filename == f"{batch.id}_output.jsonl"
        assert client.files.delete(batch.output_file_id).deleted
        with pytest.raises(openai.NotFoundError):
            client.files.content(batch.output_file_id)


@pytest.mark.parametrize(
    ("endpoint", "body", "said"),
    [
        ("/v1/messages", {"model": "sim/echo", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}, lambda body: body["content"][0]["text"]),
        ("/v1/responses", {"model": "sim/echo", "input": "Hi"}, lambda body: body["output"][0]["content"][0]["text"]),
        ("/v1/completions", {"model": "sim/echo", "prompt": "Hi"}, lambda body: body["choices"][0]["text"]),
        ("/v1/embeddings", {"model": "sim/embed", "input": "Hi"}, lambda body: body["data"][0]["embedding"] and "Hi"),
    ],
)
def test_every_endpoint_answers_in_its_own_shape(gateway: Gateway, endpoint: str, body: dict[str, Any], said: Any) -> None:
    with client_of(gateway) as client:
        lines = [line("good", body, endpoint), line("unknown", {**body, "model": "nobody/nothing"}, endpoint), line("other", body, "/v1/models")]
        batch = ended(client, create(client, lines, endpoint).id)
        (good,) = read(client, batch.output_file_id)
        assert "Hi" in said(good["response"]["body"])
        unknown, other = sorted(read(client, batch.error_file_id), key=lambda each: each["custom_id"] == "other")
        assert unknown["response"]["status_code"] == 404
        envelope = unknown["response"]["body"]
        assert envelope["type"] == "error" if endpoint == "/v1/messages" else envelope["error"]["code"] == "unknown_model"
        assert other["error"]["code"] == "invalid_request" and other["error"]["line"] == 3


def test_mistakes_are_the_sdks_errors(gateway: Gateway) -> None:
    with client_of(gateway) as client:
        with pytest.raises(openai.BadRequestError, match="the custom_id 'a' of line 2 is that of line 1") as refused:
            create(client, [line("a", chat("sim/echo"))] * 2)
        assert refused.value.code == "duplicate_custom_id" and refused.value.param == "input_file_id"
        with pytest.raises(openai.NotFoundError):
            client.batches.create(input_file_id="file-nobodys", endpoint=CHAT, completion_window="24h")
        with pytest.raises(openai.NotFoundError):
            client.batches.cancel("batch_nobodys")
        with pytest.raises(openai.BadRequestError, match="purpose"):
            client.files.create(file=b"x", purpose="fun")  # type: ignore[arg-type]


def test_lines_past_a_cap_are_errors_with_the_402(gateway: Gateway) -> None:
    made = gateway.request("POST", "/v1/sub-accounts", {"name": f"capped {SEED}", "spend_cap_cents": 1, "budget_mode": "hard"})[2]
    with client_of(gateway, made["key"]) as client:
        lines = [line(str(n), chat("sim/long-2000", "Hi", max_tokens=2000)) for n in range(60)]
        batch = ended(client, create(client, lines).id)
        output, errors = read(client, batch.output_file_id), read(client, batch.error_file_id)
        assert output and errors and len(output) + len(errors) == 60 and batch.status == "completed"
        assert {each["response"]["status_code"] for each in errors} == {402}
        assert {each["response"]["body"]["error"]["code"] for each in errors} == {"budget_exceeded"}
        assert gateway.request("GET", f"/v1/sub-accounts/{made['id']}")[2]["spent_cents"] <= 1


def test_a_batch_tells_its_end_and_is_charged_by_the_factor(start: Any, tmp_path: Path) -> None:
    with receiver(tmp_path) as hooks:
        gateway = start("[webhooks]\nallow_loopback = true\n[batches]\nprice_factor = 0.5\n")
        plain = gateway.request("POST", CHAT, chat("sim/echo"))[2]["usage"]["cost"]
        with client_of(gateway) as client:
            made = create(client, [line(str(n), chat("sim/echo")) for n in range(10)], extra_body={"webhook_url": hooks.url + "/batch"})
            [got] = wait_until(hooks.got, 30)
            record = json.loads(got["body"])
            assert (got["path"], record["id"], record["status"]) == ("/batch", made.id, "completed") and got["headers"]["x-gateway-signature"]
            assert record["cost_cents"] == pytest.approx(10 * plain * 100 / 2)
            assert record == client.batches.retrieve(made.id).model_dump(exclude={"model"})
        assert gateway.stop() == 0
        report = verify_data_dir(str(gateway.data_dir))
        assert report.is_sound and report.calls == 11, report_lines(report)


def test_a_file_over_the_limit_is_refused_while_it_comes(start: Any) -> None:
    gateway = start("[files]\nmax_bytes = 3000000\n")
    with client_of(gateway) as client:
        assert client.files.create(file=("a", b"x" * 3_000_000), purpose="user_data").bytes == 3_000_000
        with pytest.raises(openai.APIStatusError, match="more than 3000000 bytes") as refused:
            client.files.create(file=("a", b"x" * 3_000_001), purpose="user_data")
        assert refused.value.status_code == 413


def test_the_snippets_of_the_page_run(gateway: Gateway, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "batches.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "1").mkdir()
    output = run_as_reader([sys.executable, "-c", snippet.replace("http://127.0.0.1:4000", gateway.url)], gateway, tmp_path / "1")
    assert output.startswith("completed BatchRequestCounts(completed=100") and output.count("question") == 100
    (snippet,) = re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "2").mkdir()
    output = run_as_reader(["bash", "-euc", snippet], gateway, tmp_path / "2")
    assert '"custom_id":"a"' in output and "completed" in output and "_output.jsonl" in output


LINES_A_KILL = 50
MODELS = ("echo", "ttft-20ms+echo", "slow-5ms+long-20", "503-then-ok")


def test_no_kill_loses_a_line_or_sends_one_twice(tmp_path: Path) -> None:
    print(f"seed {SEED}, {KILLS} kills")
    source = random.Random(SEED)
    bill = tmp_path / "bill.jsonl"
    with running_sim(bill) as base_url:
        settings = PATIENT + "[server]\nworkers = 2\n[batches]\nbatch_concurrency = 8\n" + provider_config("simx", base_url, MODELS)
        gateway = start_gateway(tmp_path, settings)
        try:
            asked = {f"{batch}-{n}": source.choice(MODELS) for batch in range(3) for n in range(LINES_A_KILL * KILLS)}
            with client_of(gateway) as client:
                batches = [
                    create(client, [line(name, chat(f"simx/{model}", name)) for name, model in asked.items() if name.startswith(f"{batch}-")]).id
                    for batch in range(3)
                ]
            for number in range(KILLS):
                kind = ("keeper", "worker", "all", "supervisor", "keeper", "worker")[number % 6]
                time.sleep(source.random() * 0.8)
                gateway = kill(gateway, kind, source, lambda: start_gateway(tmp_path, settings))
            with client_of(gateway, max_retries=10) as client:  # the last one killed may not be back yet
                done = [ended(client, each, 120) for each in batches]
                results = [each for batch in done for each in [*read(client, batch.output_file_id), *read(client, batch.error_file_id)]]
            assert gateway.stop() == 0
        finally:
            gateway.kill()
        assert [batch.status for batch in done] == ["completed"] * 3
        check(results, asked, gateway, bill)


def kill(gateway: Gateway, kind: str, source: random.Random, restart: Any) -> Gateway:
    pids = wait_until(lambda: victims_of(gateway, kind))
    if kind in ("worker", "keeper"):
        pids = [source.choice(pids)]
    everyone = victims_of(gateway, "all")
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if gateway.process.pid in pids:
        gateway.process.wait(10)
        wait_until(lambda: all(is_gone(pid) for pid in everyone))
        return restart()
    return gateway


def check(results: list[dict[str, Any]], asked: dict[str, str], gateway: Gateway, bill: Path) -> None:
    assert Counter(each["custom_id"] for each in results) == Counter(asked.keys()), "a line was lost or doubled"
    good = [each for each in results if each["response"] and each["response"]["status_code"] == 200]
    for each in good:
        assert each["response"]["body"]["choices"][0]["message"]["content"]
    unknown = Counter(each["error"]["code"] if each["error"] else each["response"]["status_code"] for each in results if each not in good)
    print(f"{len(good)} good, others {dict(unknown)}")
    seen, billed = read_bill(bill)
    assert len(seen) == len(set(seen)), "an attempt was sent twice under one id"
    attempts = {row["attempt_id"]: row for row in rows(gateway.data_dir, "attempts")}
    assert set(seen) <= attempts.keys()
    calls = {row["call_id"]: row for row in rows(gateway.data_dir, "calls")}
    answered: Counter[str] = Counter(name[4:-2] for name, row in calls.items() if row["status"] == 200)  # by line, without the try
    assert set(answered.values()) == {1}, "a line was answered twice"
    for name, row in attempts.items():
        if row["end"] == "complete":
            assert (row["input_tokens"], row["output_tokens"]) == (billed[name]["prompt_tokens"], billed[name]["completion_tokens"])
    assert unknown.keys() <= {"outcome_unknown", "reply_lost"}, unknown
    assert len(good) + unknown["reply_lost"] == len(answered)
    report = verify_data_dir(str(gateway.data_dir))
    assert report.is_sound and not report.unshipped_bytes, report_lines(report)
