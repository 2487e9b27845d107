"""POST, GET and DELETE /v1/keys: what is stored, what is shown once, who may, what a wrong body is told."""

import asyncio
import json
import time

import pytest
from sqlalchemy import select

from aigate.core.client_key import is_well_formed, key_digest
from aigate.keeper.db.tables import keys as keys_table
from aigate.keeper.db.tables import outbox
from tests.api.plane import SECRET, run


def test_a_key_is_shown_once_and_stored_as_a_digest(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/keys", {"name": "web", "default_tag": "team-a", "allowed_models": ["openai/*"]})
        assert reply.status_code == 201
        made = reply.json()
        assert made["key"] == made["scoped_key"] and is_well_formed(made["key"].encode())
        assert made["effective"] is True
        rows = await plane.keys._database.read(lambda connection: connection.execute(select(keys_table)).all())
        assert [row.digest for row in rows] == [key_digest(SECRET, made["key"].encode())]
        assert made["key"] not in repr(rows)
        listed = (await plane.get("/v1/keys")).json()["data"]
        assert [key["id"] for key in listed] == [made["id"]]
        assert made["key"] not in str(listed) and listed[0]["hint"].endswith(made["key"][-4:])
        assert (listed[0]["default_tag"], listed[0]["allowed_models"]) == ("team-a", ["openai/*"])
        assert listed[0]["status"] == "active" and isinstance(listed[0]["created_at"], int)

    run(tmp_path, test)


def test_a_new_key_opens_the_control_plane_but_not_the_management_of_keys(tmp_path):
    async def test(plane):
        key = (await plane.post("/v1/keys", {"name": "web"})).json()["key"]
        headers = {"authorization": f"Bearer {key}"}
        assert (await plane.get("/v1/models", headers=headers)).status_code == 200
        for method, path in (("GET", "/v1/keys"), ("POST", "/v1/keys"), ("DELETE", "/v1/keys/key_1"), ("POST", "/v1/keys/key_1/revoke")):
            reply = await plane.client.request(method, path, headers=headers, json={"name": "x"})
            error = reply.json()["error"]
            assert (reply.status_code, error["type"], error["code"]) == (403, "permission_error", "scope_exceeded")
            assert reply.headers["x-should-retry"] == "false"

    run(tmp_path, test)


def test_an_admin_key_may_make_keys(tmp_path):
    async def test(plane):
        key = (await plane.post("/v1/keys", {"name": "ops", "isAdmin": True})).json()["key"]
        reply = await plane.post("/v1/keys", {"name": "web"}, headers={"x-api-key": key, "authorization": ""})
        assert reply.status_code == 201

    run(tmp_path, test)


def test_a_patch_changes_what_it_names_and_tells_the_workers(tmp_path):
    async def test(plane):
        body = {"name": "web", "default_tag": "a", "rate_limit_rpm": 60, "expires_at": "2999-01-01", "spend_cap_cents": 5, "budget_mode": "hard"}
        made = (await plane.post("/v1/keys", body)).json()
        path = f"/v1/keys/{made['id']}"
        changes = (
            {"name": "site", "max_streams": 3},
            {"allowedModels": ["openai/*"]},
            {"default_tag": None, "rate_limit_rpm": None, "expires_at": None},
            {"spend_cap_cents": 9},
            {"spend_cap_cents": None, "budget_mode": "clamp"},
            {"expires_at": 4102444800},
        )
        expected = {name: value for name, value in made.items() if name not in ("key", "scoped_key")}
        for change in changes:
            plane.pushed.clear()
            changed = (await plane.client.patch(path, json=change)).json()
            expected |= {"allowed_models" if name == "allowedModels" else name: value for name, value in change.items()}
            if "spend_cap_cents" in change:
                expected["remaining_cents"] = change["spend_cap_cents"]
            assert changed == expected and (await plane.get(path)).json().items() <= changed.items()
            digests = [digest for digest, principal in plane.pushed if principal.key_id == made["id"]]
            assert digests == ([] if "spend_cap_cents" in change else [key_digest(SECRET, made["key"].encode())])

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"name": None}, "name"),
        ({"allowed_models": None}, "allowed_models"),
        ({"budget_mode": None}, "budget_mode"),
        ({"expires_at": "2001-01-01"}, "expires_at"),
        ({"is_admin": True}, "is_admin"),
        ({"sub_account_id": "sa_1"}, "sub_account_id"),
        ({"rate_limit_rpm": 0}, "rate_limit_rpm"),
    ],
)
def test_a_patch_that_cannot_be_is_a_400(tmp_path, change, param):
    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web"})).json()
        reply = await plane.client.patch(f"/v1/keys/{made['id']}", json=change)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)

    run(tmp_path, test)


def test_a_revoked_key_cannot_be_changed(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web"})).json()
        await plane.client.delete(f"/v1/keys/{made['id']}")
        reply = await plane.client.patch(f"/v1/keys/{made['id']}", json={"name": "x"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "key_not_active")
        assert (await plane.client.patch("/v1/keys/key_nobody", json={"name": "x"})).status_code == 404

    run(tmp_path, test)


@pytest.mark.parametrize("how", ["DELETE", "POST"])
def test_a_revoked_key_is_refused_and_stays_listed(tmp_path, how):
    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web"})).json()
        path = f"/v1/keys/{made['id']}" + ("/revoke" if how == "POST" else "")
        for _ in range(2):  # again changes nothing
            reply = await plane.client.request(how, path)
            assert reply.status_code == 200
            assert (reply.json()["status"], reply.json()["effective"]) == ("revoked", True)
        reply = await plane.get("/v1/models", headers={"authorization": f"Bearer {made['key']}"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_key")
        assert (await plane.get(f"/v1/keys/{made['id']}")).json()["status"] == "revoked"

    run(tmp_path, test)


def test_a_change_that_does_not_reach_every_worker_says_so(tmp_path):
    class DeafWorkers:
        async def push(self, keys):
            return False

    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web"})).json()
        assert (await plane.client.delete(f"/v1/keys/{made['id']}")).json()["effective"] is False

    run(tmp_path, test, workers=DeafWorkers())


@pytest.mark.parametrize("given", [lambda at: at, lambda at: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at)), str])
def test_an_expiry_may_be_unix_seconds_or_iso(tmp_path, given):
    at = int(time.time()) + 3600

    async def test(plane):
        for name in ("expires_at", "expiresAt"):
            assert (await plane.post("/v1/keys", {"name": "web", name: given(at)})).json()["expires_at"] == at

    run(tmp_path, test)


def test_an_expired_key_is_told_so(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web", "expires_at": time.time() + 0.2})).json()
        headers = {"authorization": f"Bearer {made['key']}"}
        while (reply := await plane.get("/v1/models", headers=headers)).status_code == 200:
            await asyncio.sleep(0.01)
        assert "expired at" in reply.json()["error"]["message"]
        assert (await plane.get(f"/v1/keys/{made['id']}")).json()["status"] == "expired"

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "param", "words"),
    [
        ({}, "name", "missing"),
        ({"name": ""}, "name", "at least 1 character"),
        ({"name": "  "}, "name", "at least 1 character"),
        ({"name": 5}, "name", "string"),
        ({"name": "a\0b"}, "name", "not allowed here"),
        ({"name": "\ud800"}, "name", "unicode"),
        ({"name": "x", "default_tag": "a\nb"}, "default_tag", "not allowed here"),
        ({"name": "x", "expires_at": "0001-01-01T00:00:00+23:59"}, "expires_at", "future"),
        ({"name": "x", "expires_at": 1e20}, "expires_at", "9999"),
        ({"name": "x" * 201}, "name", "at most 200"),
        ({"name": "x", "expires_at": 1}, "expires_at", "future"),
        ({"name": "x", "expiresAt": "soon"}, "expiresAt", "date"),
        ({"name": "x", "allowed_models": "openai/*"}, "allowed_models", "list"),
        ({"name": "x", "allowed_models": ["a", ""]}, "allowed_models[1]", "at least 1 character"),
        ({"name": "x", "default_tag": "t" * 65}, "default_tag", "at most 64"),
        ({"name": "x", "is_admin": "perhaps"}, "is_admin", "boolean"),
        ({"name": "x", "nmae": "y"}, "nmae", "no such field"),
        ([], None, "JSON object"),
        ("text", None, "JSON object"),
        (None, None, "JSON object"),
    ],
)
def test_a_wrong_body_is_a_400_that_names_the_field(tmp_path, body, param, words):
    async def test(plane):
        reply = await plane.client.post("/v1/keys", content=json.dumps(body), headers={"content-type": "application/json"})
        error = reply.json()["error"]
        assert (reply.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
        assert words in error["message"]
        assert (await plane.get("/v1/keys")).json()["data"] == []

    run(tmp_path, test)


@pytest.mark.parametrize("body", [b"{", b'{"name": "x"', b"\xff\xfe", b'{"name": "\xff"}', b"", b"NaN", b"[" * 100_000, b"1" * 5000])
def test_a_body_that_is_not_json_is_a_400(tmp_path, body):
    async def test(plane):
        reply = await plane.client.post("/v1/keys", content=body, headers={"content-type": "application/json"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "invalid_request")

    run(tmp_path, test)


def test_a_body_without_its_content_type_is_told_what_to_send(tmp_path):
    async def test(plane):
        for headers in ({"content-type": "application/x-www-form-urlencoded"}, {}):
            reply = await plane.client.post("/v1/keys", content=b'{"name": "x"}', headers=headers)
            assert reply.status_code == 400
            assert "content-type: application/json" in reply.json()["error"]["message"]

    run(tmp_path, test)


def test_a_body_that_is_too_large_is_a_413(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/keys", {"name": "x" * 2_000_000})
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "payload_too_large")

    run(tmp_path, test)


def test_keys_are_listed_in_pages_newest_first(tmp_path):
    async def test(plane):
        made = [(await plane.post("/v1/keys", {"name": str(number)})).json()["id"] for number in range(7)]
        seen, cursor = [], None
        while True:
            page = (await plane.get("/v1/keys", params={"limit": 3} | ({"cursor": cursor} if cursor else {}))).json()
            seen += [key["id"] for key in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert seen == sorted(made, reverse=True)

    run(tmp_path, test)


@pytest.mark.parametrize("cursor", ["%00", "nonsense", "key_%FF"])
def test_an_odd_cursor_is_a_400(tmp_path, cursor):
    async def test(plane):
        reply = await plane.get(f"/v1/keys?cursor={cursor}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "cursor")

    run(tmp_path, test)


def test_a_key_that_does_not_exist_is_a_404(tmp_path):
    async def test(plane):
        for method, path in (("GET", "/v1/keys/%00"), ("GET", "/v1/keys/key_x"), ("DELETE", "/v1/keys/key_x"), ("POST", "/v1/keys/key_x/revoke")):
            reply = await plane.client.request(method, path)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    run(tmp_path, test)


# --- scoped keys ----------------------------------------------------------------------------------------------------------------


def test_a_scoped_key_has_its_limits(tmp_path):
    limits = {"spend_cap_cents": 250, "budget_mode": "hard", "rate_limit_rpm": 30, "rate_limit_tpm": 9000, "max_streams": 2}

    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web", **limits})).json()
        (listed,) = (await plane.get("/v1/keys")).json()["data"]
        for shown in (made, listed, (await plane.get(f"/v1/keys/{made['id']}")).json()):
            assert {name: shown[name] for name in limits} == limits
            assert shown["remaining_cents"] == 250
        digest = key_digest(SECRET, made["key"].encode())
        principal = (await plane.keys.find([digest]))[digest]
        assert [(rate.kind, rate.limit) for rate in principal.rates] == [("requests", 30), ("tokens", 9000), ("streams", 2)]
        assert len(principal.budgets) == 1

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"spend_cap_cents": -1}, 400, "spend_cap_cents"),
        ({"spend_cap_cents": 10**12}, 400, "spend_cap_cents"),
        ({"rate_limit_rpm": 0}, 400, "rate_limit_rpm"),
        ({"allowed_models": ["openai/gpt-nope"]}, 400, "allowed_models[0]"),
        ({"sub_account_id": "sa_nobody"}, 404, "sub_account_id"),
        ({"sub_account_id": "sa_nobody", "is_admin": True}, 400, "is_admin"),
    ],
)
def test_a_wrong_limit_makes_no_key(tmp_path, body, status, param):
    async def test(plane):
        reply = await plane.post("/v1/keys", {"name": "web", **body})
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
        assert (await plane.get("/v1/keys")).json()["data"] == []

    run(tmp_path, test)


# --- rotation -------------------------------------------------------------------------------------------------------------------


async def works(plane, key):
    return (await plane.get("/v1/models", headers={"authorization": f"Bearer {key}"})).status_code == 200


def test_a_rotated_key_is_in_force_at_once_and_the_old_one_until_it_is_used(tmp_path):
    async def test(plane):
        old = (await plane.post("/v1/keys", {"name": "web", "spend_cap_cents": 7, "default_tag": "t"})).json()
        reply = await plane.post(f"/v1/keys/{old['id']}/rotate")
        new = reply.json()
        assert (reply.status_code, new["id"], new["effective"]) == (201, old["id"], True)
        assert new["key"] == new["scoped_key"] != old["key"]
        assert (new["spend_cap_cents"], new["default_tag"], new["next_hint"][-4:]) == (7, "t", new["key"][-4:])
        assert await works(plane, old["key"]) and await works(plane, old["key"])
        assert await works(plane, new["key"])
        assert not await works(plane, old["key"])
        assert (key_digest(SECRET, old["key"].encode()), None) in plane.pushed
        assert await works(plane, new["key"])
        shown = (await plane.get(f"/v1/keys/{old['id']}")).json()
        assert (shown["hint"][-4:], shown["next_hint"], shown["status"]) == (new["key"][-4:], None, "active")

    run(tmp_path, test)


def test_rotating_again_makes_the_newest_count(tmp_path):
    async def test(plane):
        old = (await plane.post("/v1/keys", {"name": "web"})).json()
        second, third = [(await plane.post(f"/v1/keys/{old['id']}/rotate")).json()["key"] for _ in range(2)]
        assert await works(plane, old["key"]) and not await works(plane, second)
        assert await works(plane, third) and not await works(plane, old["key"])

    run(tmp_path, test)


def test_revoking_ends_both_keys_of_a_rotation(tmp_path):
    async def test(plane):
        old = (await plane.post("/v1/keys", {"name": "web"})).json()
        new = (await plane.post(f"/v1/keys/{old['id']}/rotate")).json()
        await plane.client.delete(f"/v1/keys/{old['id']}")
        assert not await works(plane, old["key"]) and not await works(plane, new["key"])
        reply = await plane.post(f"/v1/keys/{old['id']}/rotate")
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "key_not_active")
        assert (await plane.post("/v1/keys/key_nobody/rotate")).status_code == 404

    run(tmp_path, test)


def test_a_rotation_is_told_to_others(tmp_path):
    async def test(plane):
        old = (await plane.post("/v1/keys", {"name": "web"})).json()
        new = (await plane.post(f"/v1/keys/{old['id']}/rotate")).json()
        (event,) = await plane.database.read(lambda connection: connection.execute(select(outbox)).all())
        assert (event.type, event.account_id, json.loads(event.payload)["key_id"]) == ("key.rotated", "acc_default", old["id"])
        assert old["key"] not in event.payload and new["key"] not in event.payload

    run(tmp_path, test)
