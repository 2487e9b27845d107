"""Calls on a caller's own provider key: sent with it to that provider alone, metered, not charged but for the fee, never shown."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import Gateway, start_gateway
from tests.e2e.wire import chat, rows, shipped
from tests.http_host import Handler, serving

OWN, OTHERS = "own-key-of-anna-0001", "operators-credential-0001"
USAGE = {"prompt_tokens": 1_000, "completion_tokens": 500, "total_tokens": 1_500}


class Provider(Handler):
    """Answers any call, and a 401 that repeats the key to a model named `refused`; notes whose key came."""

    keys: list[str] = []

    def do_POST(self) -> None:
        asked = json.loads(self.body())
        assert "provider_key_id" not in asked
        self.keys.append(self.headers["authorization"])
        if asked["model"] == "refused":
            return self.say(401, {"error": {"message": f"bad key {self.headers['authorization']}"}})
        message = {"role": "assistant", "content": "Hello"}
        self.say(200, {"id": "c1", "object": "chat.completion", "created": 1, "model": asked["model"], "usage": USAGE,
                       "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})  # fmt: skip

    def say(self, status: int, body: object) -> None:
        self.answer(status, "application/json", json.dumps(body).encode())


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    with serving(Provider) as port:
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture(autouse=True)
def no_keys_yet() -> None:
    Provider.keys = []


@contextmanager
def gateway_with(folder: Path, provider: str, fee: float = 0.0) -> Iterator[Gateway]:
    settings = f'[ledger]\nown_key_usd_per_mtok = {fee}\n'
    for name in ("mine", "other"):
        settings += f'[providers.{name}]\ndialect = "openai-chat"\nbase_url = "{provider}"\napi_key = "{OTHERS}"\nmodels = ["*"]\n'
        settings += "".join(f'[models."{name}/{model}"]\ninput_usd_per_mtok = 1\noutput_usd_per_mtok = 2\n' for model in ("m", "refused"))
    running = start_gateway(folder, settings)
    yield running
    running.kill()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory, provider):
    with gateway_with(tmp_path_factory.mktemp("own"), provider) as running:
        yield running


def call(gateway, body, *, key=None, **headers):
    request = urllib.request.Request(gateway.url + "/v1/chat/completions", json.dumps(body).encode(), method="POST")
    request.add_header("authorization", f"Bearer {key or gateway.key}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        reply = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        reply = error
    with reply:
        return reply.status, dict(reply.headers), json.loads(reply.read())


def test_a_key_in_a_header_serves_its_own_provider_and_costs_the_caller_s_budget_nothing(gateway):
    status, _, customer = gateway.request("POST", "/v1/sub-accounts", {"name": "poor", "spend_cap_cents": 0})
    assert status == 201
    assert call(gateway, chat("mine/m"), key=customer["key"])[0] == 402
    status, headers, reply = call(gateway, chat("mine/m"), key=customer["key"], x_byok_mine=OWN)
    assert (status, reply["usage"]["cost"], headers["x-cost-cents"]) == (200, 0, "0")
    status, _, _ = call(gateway, chat("other/m"), x_byok_mine=OWN)  # not that provider's key
    assert status == 200
    assert Provider.keys == [f"Bearer {OWN}", f"Bearer {OTHERS}"]
    _, (attempt,) = shipped(gateway, headers["x-request-id"])
    assert (attempt["input_tokens"], attempt["output_tokens"], attempt["cost_nanousd"], attempt["hold_nanousd"]) == (1_000, 500, 0, 0)


def test_a_fee_is_by_the_token_and_counts(tmp_path, provider):
    with gateway_with(tmp_path, provider, fee=0.2) as gateway:
        _, headers, reply = call(gateway, chat("mine/m"), x_byok_mine=OWN)
        assert (reply["usage"]["cost"], headers["x-cost-cents"]) == (0.0003, "0.03")
        gateway.stop()
        assert [row["cost_nanousd"] for row in rows(gateway.data_dir, "attempts")] == [300_000]


def test_a_stored_key_is_named_in_the_body_and_belongs_to_its_owner(gateway):
    _, _, stored = gateway.request("POST", "/v1/provider-keys", {"provider": "mine", "key": OWN, "name": "anna's"})
    status, _, reply = call(gateway, chat("mine/m", provider_key_id=stored["id"]))
    assert (status, reply["usage"]["cost"]) == (200, 0)
    assert call(gateway, chat("mine/m", provider_key_id=stored["id"]))[0] == 200  # from memory
    assert Provider.keys == [f"Bearer {OWN}"] * 2
    for body, expected in (
        (chat("other/m", provider_key_id=stored["id"]), 400),
        (chat("mine/m", provider_key_id="pk_none"), 404),
        (chat("mine/m", provider_key_id=7), 400),
    ):
        status, _, reply = call(gateway, body)
        assert (status, reply["error"]["param"]) == (expected, "provider_key_id")
    assert len(Provider.keys) == 2


def test_a_stored_key_that_was_deleted_is_used_by_nobody_once_the_answer_is_there(gateway):
    for number in range(5):
        _, _, stored = gateway.request("POST", "/v1/provider-keys", {"provider": "mine", "key": f"{OWN}-{number}", "name": "anna's"})
        assert call(gateway, chat("mine/m", provider_key_id=stored["id"]))[0] == 200
        status, _, deleted = gateway.request("DELETE", f"/v1/provider-keys/{stored['id']}")
        assert (status, deleted["effective"], deleted["status"]) == (200, True, "revoked")
        assert call(gateway, chat("mine/m", provider_key_id=stored["id"]))[0] == 404


def test_a_key_never_shows_not_even_where_the_provider_repeats_it(tmp_path, provider):
    with gateway_with(tmp_path, provider) as gateway:
        status, _, reply = call(gateway, chat("mine/refused", fallbacks=False), x_byok_mine=OWN)
        assert status == 502 and reply["error"]["origin"] == "provider"
        for bad in ("", "two words"):
            assert call(gateway, chat("mine/m"), x_byok_mine=bad)[0] == 400
        gateway.stop()
    places = [json.dumps(reply), gateway.errors.read_text(), *map(str, rows(gateway.data_dir, "attempts")), *map(str, rows(gateway.data_dir, "calls"))]
    assert OWN not in "".join(places)
    kept = [path for path in gateway.data_dir.rglob("*") if path.is_file()]
    assert kept and not [path for path in kept if OWN.encode() in path.read_bytes()]
