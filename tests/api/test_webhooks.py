"""/v1/webhook-secret, /v1/webhook-endpoints, /v1/webhook-deliveries: whose they are, what is shown, what is refused."""

import time

import pytest
from sqlalchemy import select

from aigate.core.webhook import Try
from aigate.keeper.db.deliveries import hand_over_events, record_try
from aigate.keeper.db.outbox import Event, add_events
from aigate.keeper.db.webhook_tables import webhook_endpoints, webhook_secrets
from tests.api.plane import run

URL = "https://8.8.8.8/hook"


async def customers(plane):
    """Headers of: a key of the account, two keys of one sub-account, a key of another."""
    plain = (await plane.post("/v1/keys", {"name": "plain"})).json()
    first = (await plane.post("/v1/sub-accounts", {"name": "first"})).json()
    second = (await plane.post("/v1/sub-accounts", {"name": "second"})).json()
    more = (await plane.post("/v1/keys", {"name": "more", "sub_account_id": first["id"]})).json()
    return [{"authorization": f"Bearer {made['key']}"} for made in (plain, first, more, second)], plain["id"], first["id"]


async def happen(plane, *events):
    """They are handed over at once."""
    now_ms = int(time.time() * 1000) + 1
    await plane.database.write(add_events, events, now_ms)
    while await plane.database.write(hand_over_events, now_ms):
        pass


def event(cause, **fields):
    return Event("job.completed", "acc_default", cause, {"id": cause}, **fields)


def test_a_key_has_a_secret_of_its_own_that_stays_until_it_is_rotated(tmp_path):
    async def test(plane):
        headers, _, _ = await customers(plane)
        secrets = [(await plane.get("/v1/webhook-secret", headers=each)).json()["secret"] for each in (None, *headers)]
        assert len(set(secrets)) == 5 and all(secret.startswith("whsec_") for secret in secrets)
        assert (await plane.get("/v1/webhook-secret")).json()["secret"] == secrets[0]
        rotated = (await plane.post("/v1/webhook-secret/rotate")).json()
        assert rotated["secret"] not in secrets and rotated["previous_valid_until"] is None
        assert (await plane.get("/v1/webhook-secret")).json()["secret"] == rotated["secret"]
        kept = await plane.database.read(lambda connection: repr(connection.execute(select(webhook_secrets)).all()))
        assert not any(secret.removeprefix("whsec_") in kept for secret in (*secrets, rotated["secret"]))

    run(tmp_path, test)


@pytest.mark.parametrize("spelt", ["overlap_s", "overlapS"])
def test_a_rotation_may_let_the_old_secret_sign_for_a_while(tmp_path, spelt):
    async def test(plane):
        old = (await plane.get("/v1/webhook-secret")).json()["secret"]
        made = (await plane.post("/v1/webhook-secret/rotate", {spelt: 60})).json()
        assert 58 <= made["previous_valid_until"] - time.time() <= 60
        assert await plane.webhooks._secrets.valid("key_root", "acc_default") == [made["secret"], old]
        again = (await plane.post("/v1/webhook-secret/rotate")).json()["secret"]
        assert await plane.webhooks._secrets.valid("key_root", "acc_default") == [again]
        assert (await plane.post("/v1/webhook-secret/rotate", {"overlap_s": -1})).status_code == 400

    run(tmp_path, test)


def test_secrets_still_open_after_the_vault_has_a_new_key(tmp_path):
    async def test(plane):
        secret = (await plane.get("/v1/webhook-secret")).json()["secret"]
        before = await plane.database.read(lambda connection: connection.execute(select(webhook_secrets.c.sealed)).scalar())
        await plane.post("/v1/provider-keys/rotate")
        after = await plane.database.read(lambda connection: connection.execute(select(webhook_secrets.c.sealed)).scalar())
        assert before != after
        assert (await plane.get("/v1/webhook-secret")).json()["secret"] == secret

    run(tmp_path, test)


def test_an_endpoint_lives_from_post_to_delete_and_its_secret_is_shown_once(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/webhook-endpoints", {"url": URL, "events": ["job.*", "job.*"], "description": "ours"})
        made = reply.json()
        secret = made.pop("secret")
        assert reply.status_code == 201 and secret.startswith("whsec_")
        assert (made["url"], made["events"], made["status"], made["description"]) == (URL, ["job.*"], "enabled", "ours")
        path = f"/v1/webhook-endpoints/{made['id']}"
        assert (await plane.get("/v1/webhook-endpoints")).json()["data"] == [made] == [(await plane.get(path)).json()]
        changed = (await plane.client.patch(path, json={"events": ["*"], "enabled": False, "url": URL + "2"})).json()
        assert changed == {**made, "events": ["*"], "status": "disabled", "url": URL + "2"}
        assert (await plane.client.patch(path, json={"enabled": True})).json()["status"] == "enabled"
        rotated = (await plane.post(f"{path}/rotate", {"overlap_s": 5})).json()["secret"]
        assert rotated != secret
        assert (await plane.client.delete(path)).json() == {"id": made["id"], "object": "webhook_endpoint", "deleted": True}
        assert (await plane.get(path)).status_code == 404
        for table in (webhook_endpoints, webhook_secrets):
            assert await plane.database.read(lambda connection, table=table: connection.execute(select(table)).all()) == []

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"), ({"url": "http://8.8.8.8/"}, "url"), ({"url": "https://10.0.0.1/"}, "url"), ({"url": "https://2130706433/"}, "url"), ({"url": 5}, "url"),
        ({"url": URL, "events": ["job.done"]}, "events[0]"), ({"url": URL, "events": ["job.*", ""]}, "events[1]"), ({"url": URL, "events": "job.*"}, "events"),
        ({"url": URL, "secret": "mine"}, "secret"), ({"url": URL, "description": "x" * 501}, "description"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_endpoint_is_named(tmp_path, body, field):
    async def test(plane):
        reply = await plane.post("/v1/webhook-endpoints", body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
        assert (await plane.get("/v1/webhook-endpoints")).json()["data"] == []
        made = (await plane.post("/v1/webhook-endpoints", {"url": URL})).json()
        if body:
            assert (await plane.client.patch(f"/v1/webhook-endpoints/{made['id']}", json=body)).status_code == 400
        assert (await plane.client.patch(f"/v1/webhook-endpoints/{made['id']}", json={"url": None})).status_code == 400

    run(tmp_path, test)


def test_what_belongs_to_others_is_not_there(tmp_path):
    async def test(plane):
        headers, _, first = await customers(plane)
        plain, own, fellow, other = headers
        made = (await plane.post("/v1/webhook-endpoints", {"url": URL}, headers=own)).json()
        assert made["sub_account_id"] == first
        await happen(plane, event("job_1", sub_account_id=first, key_id="key_x", subject="job_1"), event("job_2", key_id="key_y"))
        [delivery] = (await plane.get("/v1/webhook-deliveries", headers=fellow)).json()["data"]
        endpoint, sent = f"/v1/webhook-endpoints/{made['id']}", f"/v1/webhook-deliveries/{delivery['id']}"
        asks = [("GET", endpoint), ("PATCH", endpoint), ("POST", f"{endpoint}/rotate"), ("GET", sent), ("POST", f"{sent}/resend"), ("DELETE", endpoint)]
        for stranger in (plain, other):
            assert (await plane.get("/v1/webhook-endpoints", headers=stranger)).json()["data"] == []
            assert (await plane.get("/v1/webhook-deliveries", headers=stranger)).json()["data"] == []
            for method, path in asks:
                reply = await plane.client.request(method, path, headers=stranger, json={})
                assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found"), (method, path)
        for owner in (fellow, None):  # another key of the sub-account, and the account's admin
            assert (await plane.get(endpoint, headers=owner)).status_code == 200

    run(tmp_path, test)


def test_the_log_says_what_became_of_each_delivery_and_sends_again(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/webhook-endpoints", {"url": URL, "events": ["job.completed"]})).json()
        await happen(plane, *(event(f"job_{n}", subject=f"job_{n}") for n in range(3)))
        page = (await plane.get("/v1/webhook-deliveries", params={"limit": 2})).json()
        rest = (await plane.get("/v1/webhook-deliveries", params={"limit": 2, "cursor": page["next_cursor"]})).json()
        assert [each["subject"] for each in (*page["data"], *rest["data"])] == ["job_2", "job_1", "job_0"] and rest["next_cursor"] is None
        first = rest["data"][0]
        await plane.database.write(record_try, first["id"], Try(1_800_000_000_000, 12, 500), None)
        listed = (await plane.get("/v1/webhook-deliveries", params={"status": "failed", "endpoint_id": made["id"], "event_type": "job.completed"})).json()
        assert [(each["id"], each["response_status"], each["attempts"], each["next_attempt_at"]) for each in listed["data"]] == [(first["id"], 500, 1, None)]
        whole = (await plane.get(f"/v1/webhook-deliveries/{first['id']}")).json()
        assert whole["tries"] == [{"at": 1_800_000_000, "took_ms": 12, "status": 500, "error": None}]
        assert (whole["body"]["id"], whole["body"]["type"], whole["body"]["data"]) == (first["event_id"], "job.completed", {"id": "job_0"})
        reply = await plane.post(f"/v1/webhook-deliveries/{first['id']}/resend")
        assert (reply.status_code, reply.json()["id"], reply.json()["status"], reply.json()["attempts"]) == (202, first["id"], "pending", 1)
        await plane.client.delete(f"/v1/webhook-endpoints/{made['id']}")
        assert {each["status"] for each in (await plane.get("/v1/webhook-deliveries")).json()["data"]} == {"failed"}
        gone = await plane.post(f"/v1/webhook-deliveries/{first['id']}/resend")
        assert (gone.status_code, gone.json()["error"]["code"]) == (409, "endpoint_deleted")

    run(tmp_path, test)


@pytest.mark.parametrize("query", ["status=done", "limit=0", "limit=x", "cursor=abc", "since=1"])
def test_a_wrong_filter_is_named(tmp_path, query):
    async def test(plane):
        reply = await plane.get(f"/v1/webhook-deliveries?{query}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, query.partition("=")[0])

    run(tmp_path, test)


def test_an_account_has_only_so_many_endpoints(tmp_path):
    async def test(plane):
        for _ in range(100):
            assert (await plane.post("/v1/webhook-endpoints", {"url": URL})).status_code == 201
        assert (await plane.post("/v1/webhook-endpoints", {"url": URL})).status_code == 409

    run(tmp_path, test)
