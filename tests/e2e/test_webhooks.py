"""Webhooks of a real gateway to a receiver in a process of its own, checked with the official SDK; and under SIGKILL of the keeper.

AIGATE_KILLS sets how many kills (default 3 here), AIGATE_SEED the seed.
"""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from aigateway import AIgateway, AsyncAIgateway, verify_webhook

from aigate.keeper.db.engine import database_url, open_database
from aigate.keeper.db.outbox import Event, add_events
from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.receiver import Receiver, receiver
from tests.e2e.wire import rows
from tests.test_serve import children

KILLS = int(os.environ.get("AIGATE_KILLS", "3"))
SEED = int(os.environ.get("AIGATE_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
DELIVERIES, SUBJECTS = 100, 10
CONFIG = "[webhooks]\nallow_loopback = true\nretry_delays_s = [{delays}]\n"
FAST = CONFIG.format(delays=", ".join(["0.1"] * 60))


def rotate(gateway: Gateway, key_id: str) -> None:
    status, _, reply = gateway.request("POST", f"/v1/keys/{key_id}/rotate")
    assert status == 201, reply


def new_key(gateway: Gateway) -> dict[str, Any]:
    return gateway.request("POST", "/v1/keys", {"name": "one"})[2]


def test_the_official_sdk_reads_rotates_and_verifies(tmp_path: Path) -> None:
    with receiver(tmp_path) as hooks:
        gateway = start_gateway(tmp_path, FAST)
        try:
            with AIgateway(api_key=gateway.key, base_url=gateway.url) as client:
                first = client.webhook_secret.get()["secret"]
                assert first.startswith("whsec_") and client.webhook_secret.get()["secret"] == first
                second = client.webhook_secret.rotate()["secret"]
                assert second != first and client.webhook_secret.get()["secret"] == second
            assert asyncio.run(_rotate_async(gateway)) != second
            made = gateway.request("POST", "/v1/webhook-endpoints", {"url": hooks.url + "/all", "events": ["key.rotated"]})[2]
            key_id = new_key(gateway)["id"]
            rotate(gateway, key_id)
            [got] = wait_until(hooks.got)
            assert verify_webhook(made["secret"], got["body"], got["headers"]["x-gateway-signature"])
            body = json.loads(got["body"])
            assert (body["type"], body["data"]["key_id"], got["headers"]["aig-attempt"]) == ("key.rotated", key_id, "1")
            [delivery] = wait_until(lambda: gateway.request("GET", "/v1/webhook-deliveries?status=delivered")[2]["data"])
            assert (delivery["id"], delivery["response_status"]) == (got["headers"]["aig-delivery-id"], 200)
            gateway.request("POST", f"/v1/webhook-deliveries/{delivery['id']}/resend")
            again = wait_until(lambda: hooks.got()[1:])[0]
            assert (again["headers"]["aig-delivery-id"], again["headers"]["aig-attempt"], again["body"]) == (delivery["id"], "2", got["body"])
        finally:
            gateway.kill()


def test_the_page_about_webhooks_checks_them_as_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [snippet] = re.findall(r"^```python\n(.*?)^```", (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(), re.MULTILINE | re.DOTALL)
    with receiver(tmp_path) as hooks:
        gateway = start_gateway(tmp_path, FAST)
        try:
            monkeypatch.setenv("AIGATE_KEY", gateway.key)
            monkeypatch.setenv("AIGATE_URL", gateway.url)
            page: dict[str, Any] = {}
            exec(snippet, page)  # noqa: S102  it is ours
            write_event(gateway, "job.completed", hooks.url, "key_root")
            [got] = wait_until(hooks.got)
            body = got["body"].encode()
            assert json.loads(body) == {"id": "job_1", "status": "completed"}
            assert (page["status_for"](got["headers"], body), page["status_for"](got["headers"], body + b" ")) == (200, 401)
        finally:
            gateway.kill()


def write_event(gateway: Gateway, event_type: str, url: str, key_id: str) -> None:
    """As a job's end does, in the database of the running server."""
    database = open_database(database_url(gateway.data_dir))
    event = Event(event_type, "acc_default", "of a test", {"id": "job_1", "status": "completed"}, key_id=key_id, url=url, subject="job_1")
    database.write_now(add_events, [event], int(time.time() * 1000))
    database.close()


async def _rotate_async(gateway: Gateway) -> str:
    async with AsyncAIgateway(api_key=gateway.key, base_url=gateway.url) as client:
        rotated = (await client.webhook_secret.rotate())["secret"]
        assert (await client.webhook_secret.get())["secret"] == rotated
        return rotated


def test_spending_past_a_threshold_is_told(tmp_path: Path) -> None:
    with receiver(tmp_path) as hooks:
        gateway = start_gateway(tmp_path, FAST + '[models."sim/echo"]\ninput_usd_per_mtok = 0\noutput_usd_per_mtok = 1000\n')
        try:
            gateway.request("POST", "/v1/webhook-endpoints", {"url": hooks.url, "events": ["usage.*", "sub_account.*"]})
            customer = gateway.request("POST", "/v1/sub-accounts", {"name": "acme", "spend_cap_cents": 4})[2]
            own = gateway.request("POST", "/v1/webhook-endpoints", {"url": hooks.url + "/own"}, customer["key"])[2]
            call = {"model": "sim/echo", "messages": [{"role": "user", "content": "word " * 8}], "max_tokens": 8}
            while gateway.request("POST", "/v1/chat/completions", call, customer["key"])[0] == 200:
                pass  # until its cap
            wait_until(lambda: {json.loads(got["body"])["type"] for got in hooks.got() if got["path"] == "/own"} >= {"usage.threshold"})
            own_bodies = [got for got in hooks.got() if got["path"] == "/own"]
            assert all(verify_webhook(own["secret"], got["body"], got["headers"]["x-gateway-signature"]) for got in own_bodies)
            assert {json.loads(got["body"])["data"]["id"] for got in own_bodies} == {customer["id"]}
        finally:
            gateway.kill()


def test_every_delivery_comes_under_one_id_and_in_order_however_often_the_keeper_is_killed(tmp_path: Path) -> None:
    print(f"AIGATE_SEED={SEED} AIGATE_KILLS={KILLS}")
    chance = random.Random(SEED)
    with receiver(tmp_path, seed=SEED, refused_share=0.2) as hooks:
        gateway = start_gateway(tmp_path, FAST)
        try:
            gateway.request("POST", "/v1/webhook-endpoints", {"url": hooks.url, "events": ["key.*"]})
            keys = [new_key(gateway)["id"] for _ in range(SUBJECTS)]
            causes = threading.Thread(target=_rotate_all, args=(gateway, keys))
            causes.start()
            for _ in range(KILLS):
                seen = len(hooks.got())
                wait_until(lambda seen=seen: len(hooks.got()) >= seen + chance.randrange(1, 12) or _is_all_there(gateway, hooks), 30)
                time.sleep(chance.random() * 0.05)  # anywhere between two steps of the keeper
                for pid in children(gateway).get("keeper", []):
                    os.kill(pid, signal.SIGKILL)
            causes.join()
            wait_until(lambda: _is_all_there(gateway, hooks), 60)
            _check(gateway, hooks)
        finally:
            gateway.kill()


def _rotate_all(gateway: Gateway, keys: list[str]) -> None:
    """Again where the keeper was killed under the request: whether it was rotated before is not known, so there may be more events."""
    for key_id in itertools.chain.from_iterable([keys] * (DELIVERIES // SUBJECTS)):
        while not _rotate(gateway, key_id):
            time.sleep(0.02)


def _rotate(gateway: Gateway, key_id: str) -> bool:
    try:
        return gateway.request("POST", f"/v1/keys/{key_id}/rotate")[0] == 201
    except (OSError, http.client.HTTPException):
        return False  # the kill came between the reply's head and its body


def _is_all_there(gateway: Gateway, hooks: Receiver) -> bool:
    events = rows(gateway.data_dir, "outbox")
    deliveries = rows(gateway.data_dir, "webhook_deliveries")
    return len(events) >= DELIVERIES and len(deliveries) == len(events) and all(row["status"] == "delivered" for row in deliveries)


def _check(gateway: Gateway, hooks: Receiver) -> None:
    accepted = [got for got in hooks.got() if got["status"] == 200]
    events = sorted(rows(gateway.data_dir, "outbox"), key=lambda row: (row["created_ms"], row["id"]))
    ids_by_event = defaultdict(set)
    for got in hooks.got():
        ids_by_event[json.loads(got["body"])["id"]].add(got["headers"]["aig-delivery-id"])
    assert ids_by_event.keys() == {event["id"] for event in events}, "each event came"
    assert {len(ids) for ids in ids_by_event.values()} == {1}, "under one delivery id"
    assert len(events) >= DELIVERIES
    place = {event["id"]: number for number, event in enumerate(events)}
    by_subject = defaultdict(list)
    for got in accepted:
        body = json.loads(got["body"])
        by_subject[body["data"]["key_id"]].append(place[body["id"]])
    for subject, order in by_subject.items():
        assert order == sorted(order), f"{subject}: a later event was accepted before an earlier one"
    assert len(by_subject) == SUBJECTS
