"""A product that resells: each customer a sub-account, made with the official SDK, spent with the `openai` SDK, on two workers."""

import httpx
import openai
import pytest

from tests.conftest import start_gateway
from tests.e2e.wire import shipped

aigateway = pytest.importorskip("aigateway", reason="the official SDK is not installed (pip install aigateway-py)")

HOLD_USD = 0.0003  # no call of these tests holds more


@pytest.fixture(scope="module")
def gate(tmp_path_factory):
    running = start_gateway(tmp_path_factory.mktemp("customers"), "", None, "--workers", "2")
    yield running
    running.kill()


@pytest.fixture
def product(gate):
    return aigateway.AIgateway(api_key=gate.key, base_url=gate.url)


def client_of(gate, key):
    return openai.OpenAI(base_url=f"{gate.url}/v1", api_key=key, max_retries=2)


def ask(client, **fields):
    return client.chat.completions.create(model="sim/echo", messages=[{"role": "user", "content": "word " * 200}], max_tokens=200, **fields)


def spend_until_refused(client):
    """Dollars, and the refusal."""
    spent = 0.0
    for _ in range(2_000):
        try:
            spent += ask(client).usage.cost
        except openai.APIStatusError as error:
            return spent, error
    raise AssertionError("it was never refused")


def test_a_customers_life_with_the_official_sdk(gate, product):
    made = product.sub_accounts.create(name="Acme", external_ref="crm-1", spend_cap_cents=1, default_tag="acme")
    assert made["key"] == made["scoped_key"] and made["id"].startswith("sa_")
    assert product.sub_accounts.get(made["id"])["spend_cap_cents"] == 1
    assert [each["name"] for each in product.sub_accounts.list() if each["id"] == made["id"]] == ["Acme"]
    client = client_of(gate, made["key"])

    spent, refusal = spend_until_refused(client)
    assert (refusal.status_code, refusal.body["code"], refusal.body["scope"], refusal.body["limit_cents"]) == (
        402,
        "budget_exceeded",
        "sub_account",
        1,
    )
    assert 0.01 - HOLD_USD < spent <= 0.01

    status, _, raised = gate.request("PATCH", f"/v1/sub-accounts/{made['id']}", {"spend_cap_cents": 2})
    assert (status, raised["effective"], raised["spend_cap_cents"]) == (200, True, 2)
    more, refusal = spend_until_refused(client)
    assert refusal.status_code == 402 and 0.02 - HOLD_USD < spent + more <= 0.02

    usage = gate.request("GET", f"/v1/sub-accounts/{made['id']}/usage?window=1d")[2]
    assert usage["summary"]["cost_cents"] == pytest.approx((spent + more) * 100, abs=1e-6)
    assert gate.request("GET", "/v1/usage/by-sub-account")[2]["data"][0]["label"] == "Acme"
    own = gate.request("GET", "/v1/usage/by-tag", key=made["key"])[2]["data"]
    assert [row["tag"] for row in own] == ["acme"]

    assert product.sub_accounts.delete(made["id"])["status"] == "ok"
    for _ in range(6):  # both workers
        with pytest.raises(openai.AuthenticationError):
            ask(client_of(gate, made["key"]))
    with pytest.raises(aigateway.AIgatewayError) as gone:
        product.sub_accounts.get(made["id"])
    assert gone.value.status_code == 404


def test_a_refusal_is_answered_once_and_nothing_was_sent(gate):
    made = gate.request("POST", "/v1/sub-accounts", {"name": "broke", "spend_cap_cents": 0})[2]
    requests = []
    client = client_of(gate, made["key"]).with_options(max_retries=5, http_client=httpx.Client(event_hooks={"request": [requests.append]}))
    with pytest.raises(openai.APIStatusError) as refused:
        ask(client)
    assert len(requests) == 1, "the SDK tried a 402 again"
    error, headers = refused.value, refused.value.response.headers
    assert (error.status_code, error.body["code"], error.body["retryable"], headers["x-should-retry"]) == (402, "budget_exceeded", False, "false")
    assert {"limit_cents", "spent_cents", "reserved_cents", "held_cents", "resets_at"} <= error.body.keys()
    assert not {"x-aig-provider", "x-aig-served-by", "x-aig-attempts"} & headers.keys()
    call, attempts = shipped(gate, headers["x-request-id"])
    assert (call["status"], call["attempts"], call["served_by"], attempts) == (402, 0, "", [])


def test_a_rotated_key_carries_its_ceiling_over(gate):
    made = gate.request("POST", "/v1/keys", {"name": "web", "spend_cap_cents": 1})[2]
    old = client_of(gate, made["key"])
    first = ask(old).usage.cost
    new = client_of(gate, gate.request("POST", f"/v1/keys/{made['id']}/rotate")[2]["key"])
    assert ask(old).usage.cost == first
    spent, refusal = spend_until_refused(new)
    assert (refusal.status_code, refusal.body["scope"]) == (402, "key")
    assert 0.01 - HOLD_USD < spent + 2 * first <= 0.01
    with pytest.raises(openai.AuthenticationError):
        for _ in range(50):  # the other worker hears of it within moments
            ask(old)
