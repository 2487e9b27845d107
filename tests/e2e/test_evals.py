"""Evals through a real gateway, with the official SDKs: run, read, used as a model, within caps, and through kills."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from aigateway import AIgateway, AIgatewayError, AsyncAIgateway
from openai import APIStatusError, OpenAI

from tests.conftest import wait_until

SAYS = [{"input": f"say {word}", "contains": word} for word in ("paris", "rome", "oslo")]


@pytest.fixture(scope="module")
def client(gateway):
    with AIgateway(api_key=gateway.key, base_url=gateway.url) as made:
        yield made


def openai_of(gateway, key=None):
    return OpenAI(base_url=gateway.url + "/v1", api_key=key or gateway.key, max_retries=0)


def test_a_small_eval_has_ended_when_it_is_answered(client):
    made = client.evals.create(name="cities", candidate_models=["sim/echo", "sim/400"], dataset=SAYS, metric="quality")
    assert (made["status"], made["winner_model"], made["winning_model"]) == ("completed", "sim/echo", "sim/echo")
    assert made["alias"] == f"eval:{made['id']}" and made["dataset_size"] == 3
    by_model = {each["model"]: each for each in made["summary"]["candidates"]}
    assert (by_model["sim/echo"]["score"], by_model["sim/echo"]["failed"]) == (1.0, 0)
    assert by_model["sim/400"]["failed"] == 3
    assert made["summary"]["cost_cents"] > 0
    assert client.evals.get(made["id"]) == made
    assert made["id"] in [each["id"] for each in client.evals.list()]


def test_the_async_client_runs_one_too(gateway):
    async def run():
        async with AsyncAIgateway(api_key=gateway.key, base_url=gateway.url) as client:
            return await client.evals.create(candidateModels=["sim/echo"], dataset=SAYS[:1], metric="cost")

    made = asyncio.run(run())
    assert (made["name"], made["status"], made["winner_model"]) == ("eval", "completed", "sim/echo")


def test_the_winner_answers_as_a_model(client, gateway):
    made = client.evals.create(candidate_models=["sim/echo", "sim/400"], dataset=SAYS)
    raw = openai_of(gateway).chat.completions.with_raw_response.create(model=made["alias"], messages=[{"role": "user", "content": "say hi"}])
    assert raw.parse().model == made["alias"]
    assert raw.headers["x-aig-served-by"] == "sim/echo"
    chunks = list(openai_of(gateway).chat.completions.create(model=made["alias"], messages=[{"role": "user", "content": "hi"}], stream=True))
    assert chunks[-1].usage.total_tokens > 0


def test_an_eval_that_runs_or_failed_is_no_model_yet(client, gateway):
    failed = client.evals.create(candidate_models=["sim/400"], dataset=SAYS[:1])
    assert failed["status"] == "failed" and failed["winner_model"] is None and failed["error"]
    body = {"candidate_models": ["sim/hang"], "dataset": SAYS[:1], "metric": "speed"}
    running = client._client.post("/v1/evals", json=body, headers={"prefer": "respond-async"}).json()
    assert running["status"] == "running" and running["summary"] == {"answers": 1, "answered": 0}
    for eval_id, code in ((failed["id"], "eval_failed"), (running["id"], "eval_running"), ("eval_nobodys", "unknown_model")):
        with pytest.raises(APIStatusError) as refused:
            openai_of(gateway).chat.completions.create(model=f"eval:{eval_id}", messages=[{"role": "user", "content": "hi"}])
        assert refused.value.body["code"] == code


def test_a_judge_scores_what_cannot_be_compared(client):
    # The simulated judge repeats what it was shown and gives no score: that is said, never guessed.
    made = client.evals.create(candidate_models=["sim/echo"], dataset=[{"input": "write a poem"}], judge_model="sim/echo")
    assert made["status"] == "failed" and "judge gave no score" in made["error"]
    assert made["summary"]["scoring_cost_cents"] > 0


def test_answers_are_listed_with_what_they_cost(client, gateway):
    made = client.evals.create(candidate_models=["sim/echo", "sim/reasoning"], dataset=SAYS)
    first = gateway.request("GET", f"/v1/evals/{made['id']}/results?limit=4")[2]
    rest = gateway.request("GET", f"/v1/evals/{made['id']}/results?cursor={first['next_cursor']}")[2]
    rows = first["data"] + rest["data"]
    assert [(row["item"], row["model"]) for row in rows] == [(i, m) for i in range(3) for m in ("sim/echo", "sim/reasoning")]
    assert all(row["cost_cents"] > 0 and row["request_id"].startswith("req_") for row in rows)
    recent = {call["request_id"]: call for call in gateway.request("GET", "/v1/usage/recent?limit=1000")[2]["data"]}
    assert all(recent[row["request_id"]]["cost_cents"] == row["cost_cents"] for row in rows)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"candidate_models": [], "dataset": SAYS}, "candidate_models"),
        ({"candidate_models": ["sim/echo"], "dataset": []}, "dataset"),
        ({"candidate_models": ["nobody/nothing"], "dataset": SAYS}, "candidate_models[0]"),
        ({"candidate_models": ["sim/echo", "sim/echo"], "dataset": SAYS}, "candidate_models"),
        ({"candidate_models": ["sim/echo"], "dataset": SAYS, "metric": "beauty"}, "metric"),
        ({"candidate_models": ["sim/echo"], "dataset": [{"input": "x"}]}, "dataset[0]"),
        ({"candidate_models": ["sim/echo"], "dataset": SAYS, "judge_model": "nobody/nothing", "scorer": "judge"}, "judge_model"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_spent(gateway, body, field):
    before = gateway.request("GET", "/v1/usage")[2]["attempts"]
    status, _, refused = gateway.request("POST", "/v1/evals", body)
    assert (status, refused["error"]["param"]) == (400, field)
    assert gateway.request("GET", "/v1/usage")[2]["attempts"] == before


def test_another_tenants_eval_is_not_there(client, gateway):
    made = gateway.request("POST", "/v1/sub-accounts", {"name": "eval tenant"})[2]
    other = gateway.request("POST", "/v1/sub-accounts", {"name": "eval other tenant"})[2]
    with AIgateway(api_key=made["key"], base_url=gateway.url) as theirs, AIgateway(api_key=other["key"], base_url=gateway.url) as others:
        own = theirs.evals.create(candidate_models=["sim/echo"], dataset=SAYS[:1])
        with pytest.raises(AIgatewayError) as refused:
            others.evals.get(own["id"])
        assert refused.value.status_code == 404 and others.evals.list() == []
        with pytest.raises(APIStatusError) as refused:
            openai_of(gateway, other["key"]).chat.completions.create(model=own["alias"], messages=[{"role": "user", "content": "hi"}])
        assert refused.value.status_code == 404
        accounts = client.evals.create(candidate_models=["sim/echo"], dataset=SAYS[:1])
        assert openai_of(gateway, other["key"]).chat.completions.create(model=accounts["alias"], messages=[{"role": "user", "content": "hi"}])


def test_an_eval_that_could_pass_the_cap_is_refused_whole(gateway):
    made = gateway.request("POST", "/v1/sub-accounts", {"name": "capped evaluator", "spend_cap_cents": 1})[2]
    with AIgateway(api_key=made["key"], base_url=gateway.url) as client:
        with pytest.raises(AIgatewayError) as refused:
            client.evals.create(candidate_models=["sim/echo"], dataset=SAYS * 30, max_output_tokens=100_000)
        assert (refused.value.status_code, refused.value.type) == (402, "budget_exceeded")
        assert client.evals.create(candidate_models=["sim/echo"], dataset=SAYS[:1], max_output_tokens=100)["status"] == "completed"
    stands = wait_until(lambda: (now := gateway.request("GET", f"/v1/sub-accounts/{made['id']}")[2])["spent_cents"] and now)
    assert stands["spent_cents"] < 1 and stands["reserved_cents"] == 0


def test_an_eval_outlives_its_keeper_and_asks_nothing_twice(start):
    gateway = start()
    items = [{"input": f"say word{i}", "contains": f"word{i}"} for i in range(40)]
    _, _, made = gateway.request("POST", "/v1/evals", {"candidate_models": ["sim/echo", "sim/ttft-50ms"], "dataset": items, "max_output_tokens": 200})
    path = f"/v1/evals/{made['id']}"
    for _ in range(3):
        known = gateway.request("GET", path)[2]["summary"]["answered"]
        if gateway.request("GET", path)[2]["status"] != "running":
            break
        os.kill(_keeper_of(gateway), signal.SIGKILL)
        wait_until(lambda: gateway.request("GET", "/readyz")[0] == 200, 30)
        wait_until(lambda known=known: gateway.request("GET", path)[2]["summary"]["answered"] >= known, 30)
    ended = wait_until(lambda: (found := gateway.request("GET", path)[2])["status"] != "running" and found, 60)
    assert ended["status"] == "completed" and ended["summary"]["answers"] == 80
    rows = gateway.request("GET", f"{path}/results?limit=1000")[2]["data"]
    assert len({row["request_id"] for row in rows}) == 80
    assert not [row["error"] for row in rows if row["error"]]
    usage = gateway.request("GET", "/v1/usage")[2]
    assert usage["attempts"] == 80
    assert gateway.stop() == 0


def _keeper_of(gateway):
    children = open(f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children").read().split()
    return next(int(pid) for pid in children if b"keeper" in open(f"/proc/{pid}/cmdline", "rb").read())
