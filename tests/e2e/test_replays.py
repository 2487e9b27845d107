"""Replays and shadows through a real gateway, with the official SDKs, in every format, within tenants, and through kills."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal

import anthropic
import pytest
from aigateway import AIgateway, AIgatewayError, AsyncAIgateway
from openai import OpenAI

from tests.conftest import wait_until
from tests.test_serve import children

SAY = [{"role": "user", "content": "say hello to the world"}]


@pytest.fixture(scope="module")
def client(gateway):
    with AIgateway(api_key=gateway.key, base_url=gateway.url) as made:
        yield made


def openai_of(gateway, key=None):
    return OpenAI(base_url=gateway.url + "/v1", api_key=key or gateway.key, max_retries=0)


def ask(gateway, key=None, **options):
    """Request id of a chat call."""
    raw = openai_of(gateway, key).chat.completions.with_raw_response.create(**{"model": "sim/echo", "messages": SAY, **options})
    if options.get("stream"):
        for _ in raw.parse():
            pass
    return raw.headers["x-request-id"]


def test_a_past_call_is_asked_of_another_model_and_compared(client, gateway):
    source = ask(gateway)
    made = client.replays.run(source_request_id=source, target_model="sim/ttft-1ms")
    assert made["source_request_id"] == source and (made["source_model"], made["target_model"]) == ("sim/echo", "sim/ttft-1ms")
    assert made["source_cost_cents"] == made["cost_source_cents"] > 0 and made["target_cost_cents"] == made["cost_target_cents"] > 0
    assert 0.5 < made["score_delta"] <= 1.0 and "hello to the world" in made["source_output"] and "hello to the world" in made["target_output"]
    assert made["diff"]["is_equal"] == (made["source_output"] == made["target_output"])
    assert made["target_latency_ms"] == made["latency_target_ms"] and made["source_latency_ms"] >= 0
    assert client.replays.get(made["id"]) == made
    assert client.replays.list(limit=1)[0]["id"] == made["id"]
    recent = gateway.request("GET", "/v1/usage/recent?limit=50")[2]["data"]
    assert next(call for call in recent if call["request_id"] == made["request_id"])["cost_cents"] == made["target_cost_cents"]


def test_the_async_client_runs_one_of_a_stream(gateway):
    source = ask(gateway, stream=True)

    async def run():
        async with AsyncAIgateway(api_key=gateway.key, base_url=gateway.url) as client:
            return await client.replays.run(sourceRequestId=source, targetModel="sim/long-5")

    made = asyncio.run(run())
    assert made["status"] == "completed" and 0 <= made["score_delta"] < 1 and made["diff"]["text"].startswith("--- source")


def test_tool_calls_are_compared(client, gateway):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}]
    made = client.replays.run(source_request_id=ask(gateway, model="sim/tools", tools=tools), target_model="sim/tools-2")
    assert len(made["diff"]["tool_calls"]["source"]) == 1 and len(made["diff"]["tool_calls"]["target"]) == 2


def test_other_formats_are_replayed_in_their_own(client, gateway):
    claude = anthropic.Anthropic(base_url=gateway.url, api_key=gateway.key)
    message = claude.messages.with_raw_response.create(model="sim/echo", max_tokens=50, messages=SAY)
    response = openai_of(gateway).responses.with_raw_response.create(model="sim/echo", input="say hello")
    embedding = openai_of(gateway).embeddings.with_raw_response.create(model="sim/embed", input=["a b", "c"])
    _, headers, _ = gateway.request("POST", "/v1beta/models/sim/echo:generateContent", {"contents": [{"parts": [{"text": "say hello"}]}]})
    for request_id, target in (
        (message.headers["x-request-id"], "sim/ttft-1ms"),
        (response.headers["x-request-id"], "sim/ttft-1ms"),
        (embedding.headers["x-request-id"], "sim/embed"),
        (headers["x-request-id"], "sim/ttft-1ms"),
    ):
        made = client.replays.run(source_request_id=request_id, target_model=target)
        assert (made["status"], made["error"]) == ("completed", None)
        assert made["score_delta"] == pytest.approx(1.0) if target == "sim/embed" else 0.5 < made["score_delta"] <= 1.0


def test_what_was_not_kept_cannot_be_replayed_and_says_why(client, gateway):
    quiet = openai_of(gateway).chat.completions.with_raw_response.create(model="sim/echo", messages=SAY, extra_headers={"x-aig-archive": "off"})
    long = ask(gateway, messages=[{"role": "user", "content": "x" * 1_100_000}])
    for request_id, words in ((quiet.headers["x-request-id"], "archiving was off"), (long, "larger than is kept")):
        with pytest.raises(AIgatewayError, match=words) as refused:
            client.replays.run(source_request_id=request_id, target_model="sim/echo")
        assert refused.value.status_code == 409
    for source, target, status in (("req_none", "sim/echo", 404), (ask(gateway), "nobody/nothing", 404)):
        with pytest.raises(AIgatewayError) as refused:
            client.replays.run(source_request_id=source, target_model=target)
        assert refused.value.status_code == status


def test_a_tenant_without_archiving_keeps_nothing(client, gateway):
    made = gateway.request("POST", "/v1/sub-accounts", {"name": "keeps nothing", "archive_days": 0})[2]
    source = ask(gateway, made["key"])
    with pytest.raises(AIgatewayError, match="archiving was off"):
        client.replays.run(source_request_id=source, target_model="sim/echo")
    assert gateway.request("PATCH", f"/v1/sub-accounts/{made['id']}", {"archive_days": 3})[2]["archive_days"] == 3
    assert client.replays.run(source_request_id=ask(gateway, made["key"]), target_model="sim/echo")["status"] == "completed"


def test_foreign_calls_and_replays_are_not_there_and_deleted_tenants_keep_nothing(client, gateway):
    mine, other = (gateway.request("POST", "/v1/sub-accounts", {"name": f"replays {n}"})[2] for n in "ab")
    source = ask(gateway, mine["key"])
    with AIgateway(api_key=mine["key"], base_url=gateway.url) as ours, AIgateway(api_key=other["key"], base_url=gateway.url) as theirs:
        made = ours.replays.run(source_request_id=source, target_model="sim/echo")
        for attempt in (lambda: theirs.replays.run(source_request_id=source, target_model="sim/echo"), lambda: theirs.replays.get(made["id"])):
            with pytest.raises(AIgatewayError) as refused:
                attempt()
            assert refused.value.status_code == 404
        assert theirs.replays.list() == []
    gateway.request("DELETE", f"/v1/sub-accounts/{mine['id']}")
    with pytest.raises(AIgatewayError) as refused:
        client.replays.run(source_request_id=source, target_model="sim/echo")
    assert refused.value.status_code == 404


def test_a_refusal_of_the_target_is_told_and_costs_nothing(client, gateway):
    made = client.replays.run(source_request_id=ask(gateway), target_model="sim/400")
    assert made["status"] == "failed" and made["error"].startswith("400") and made["target_cost_cents"] is None


def test_a_shadow_mirrors_live_calls_of_its_key_until_it_is_stopped(client, gateway):
    key = gateway.request("POST", "/v1/keys", {"name": "shadowed"})[2]["key"]
    made = client.replays.run(source_request_id=ask(gateway, key), target_model="sim/ttft-1ms", shadow=True, share=1.0)
    assert made["shadow"] and made["shadow_id"]
    for _ in range(5):
        ask(gateway, key)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: _of_shadow(gateway, made), 3)
            break
    sources = {ask(gateway, key, stream=stream) for stream in (False, True, False)}
    ask(gateway)  # another key's
    found = wait_until(lambda: sources <= {each["source_request_id"] for each in _of_shadow(gateway, made)} and _of_shadow(gateway, made), 20)
    assert all(each["status"] in ("running", "completed") and each["shadow"] for each in found)
    done = wait_until(lambda: all(each["status"] == "completed" for each in _of_shadow(gateway, made)) and _of_shadow(gateway, made), 20)
    assert all(each["source_cost_cents"] > 0 and each["score_delta"] > 0.5 for each in done)
    assert len({each["source_request_id"] for each in done}) == len(done)  # and mirrored calls are not mirrored again
    stopped = gateway.request("DELETE", f"/v1/replays/shadows/{made['shadow_id']}")[2]
    assert stopped["status"] == "ended" and stopped["mirrored"] == len(done)
    assert gateway.request("GET", "/v1/replays/shadows")[2]["data"][0]["id"] == made["shadow_id"]


def _of_shadow(gateway, made):
    return gateway.request("GET", f"/v1/replays?shadow_id={made['shadow_id']}&limit=100")[2]["data"]


def test_replays_outlive_their_keeper_and_their_calls_run_once(start):
    gateway = start()
    sources = [ask(gateway, messages=[{"role": "user", "content": f"say {n}"}]) for n in range(6)]
    with AIgateway(api_key=gateway.key, base_url=gateway.url) as client:
        made = [
            client._client.post(
                "/v1/replays", json={"source_request_id": source, "target_model": "sim/ttft-600ms"}, headers={"prefer": "respond-async"}
            ).json()
            for source in sources
        ]
    for pid in children(gateway)["keeper"]:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: gateway.request("GET", "/readyz")[0] == 200, 30)
    ids = {each["id"] for each in made}
    ended = wait_until(lambda: all(each["status"] != "running" for each in _listed(gateway)) and _listed(gateway), 30)
    assert {each["id"] for each in ended} == ids
    assert [(each["status"], each["error"]) for each in ended] == [("completed", None)] * 6
    assert gateway.request("GET", "/v1/usage")[2]["attempts"] == 12
    assert gateway.stop() == 0


def _listed(gateway):
    return gateway.request("GET", "/v1/replays")[2]["data"]
