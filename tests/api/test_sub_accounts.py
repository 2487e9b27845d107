"""/v1/sub-accounts: what a customer is, who sees it, what changes are told to the workers, what wrong bodies are told."""

import re

import pytest

from aigate.core.budget import SUB_ACCOUNT
from aigate.core.client_key import is_well_formed, key_digest
from aigate.keeper.db.balances import add_budgets
from aigate.keeper.db.ledger_rows import write_sums
from aigate.keeper.db.limits import this_month
from aigate.keeper.db.tables import windows
from tests.api.plane import SECRET, run

FULL = {
    "name": "Acme",
    "external_ref": "crm-17",
    "spend_cap_cents": 5000,
    "budget_mode": "hard",
    "rate_limit_rpm": 60,
    "rate_limit_tpm": 100_000,
    "max_streams": 4,
    "default_tag": "acme",
    "allowed_models": ["openai/*", "sim/embed"],
}


def bearer(key):
    return {"authorization": f"Bearer {key}"}


async def spend(plane, sub_account_id, nanousd):
    """As the shipper would write it."""

    def write(connection):
        owner = (SUB_ACCOUNT, "acc_default", sub_account_id)
        budget_id = add_budgets(connection, [owner], 0)[owner]
        write_sums(connection, windows, {(budget_id, this_month()): [nanousd, 20_000_000, 10_000_000, 1, 1, 5, 5]})

    await plane.database.write(write)


def test_a_new_one_has_a_key_under_both_names_shown_once(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/sub-accounts", FULL)
        made = reply.json()
        assert (reply.status_code, made["effective"], made["object"]) == (201, True, "sub_account")
        assert made["key"] == made["scoped_key"] and is_well_formed(made["key"].encode())
        assert re.fullmatch("sa_[0-9a-z]+", made["id"]) and isinstance(made["created_at"], int)
        assert {name: made[name] for name in FULL} == FULL
        assert (made["spent_cents"], made["remaining_cents"]) == (0, 5000)
        (listed,) = (await plane.get("/v1/sub-accounts")).json()["data"]
        got = (await plane.get(f"/v1/sub-accounts/{made['id']}")).json()
        assert listed == got == {name: value for name, value in made.items() if name not in ("key", "scoped_key", "key_id", "effective")}
        (key,) = (await plane.get("/v1/keys")).json()["data"]
        assert (key["id"], key["sub_account_id"]) == (made["key_id"], made["id"])

    run(tmp_path, test)


def test_what_is_left_out_is_no_limit(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", {"name": "Acme"})).json()
        nothing = ("external_ref", "spend_cap_cents", "rate_limit_rpm", "rate_limit_tpm", "max_streams", "default_tag", "remaining_cents")
        assert [made[name] for name in nothing] == [None] * len(nothing)
        zero = (await plane.post("/v1/sub-accounts", {"name": "Zero", "spendCapCents": 0})).json()
        assert (zero["spend_cap_cents"], zero["remaining_cents"]) == (0, 0)

    run(tmp_path, test)


def test_its_key_stands_for_all_its_limits(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        digest = key_digest(SECRET, made["key"].encode())
        principal = (await plane.keys.find([digest]))[digest]
        assert (principal.sub_account_id, principal.default_tag) == (made["id"], "acme")
        assert principal.allowed_models == ("openai/*", "sim/embed")
        assert [(rate.kind, rate.owner_id, rate.limit) for rate in principal.rates] == [
            ("requests", made["id"], 60),
            ("tokens", made["id"], 100_000),
            ("streams", made["id"], 4),
        ]
        assert len(principal.budgets) == 1

    run(tmp_path, test)


def test_a_key_of_a_sub_account_is_never_allowed_more_than_it(tmp_path):
    async def test(plane):
        owner = (await plane.post("/v1/sub-accounts", {"name": "Acme", "allowed_models": ["openai/*"]})).json()
        made = (await plane.post("/v1/keys", {"name": "k", "sub_account_id": owner["id"], "allowed_models": ["sim/*", "openai/gpt-*"]})).json()
        digest = key_digest(SECRET, made["key"].encode())
        assert (await plane.keys.find([digest]))[digest].allowed_models == ("openai/gpt-*",)

    run(tmp_path, test)


def test_where_it_stands_is_shown(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        await spend(plane, made["id"], 43_890_000)
        got = (await plane.get(f"/v1/sub-accounts/{made['id']}")).json()
        amounts = [got[name] for name in ("spent_cents", "reserved_cents", "held_cents", "remaining_cents")]
        assert amounts == [4.389, 2, 1, 4993.611]
        assert got["resets_at"] > got["created_at"]

    run(tmp_path, test)


def test_a_patch_changes_what_it_names_and_tells_the_workers(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        path = f"/v1/sub-accounts/{made['id']}"
        plane.pushed.clear()
        changed = (await plane.client.patch(path, json={"defaultTag": "gold", "rate_limit_rpm": None})).json()
        assert changed["effective"] is True
        assert {name: changed[name] for name in FULL} == {**FULL, "default_tag": "gold", "rate_limit_rpm": None}
        ((digest, principal),) = plane.pushed
        assert digest == key_digest(SECRET, made["key"].encode()) and principal.default_tag == "gold"
        for body, cap, mode in (
            ({"spend_cap_cents": 9000}, 9000, "hard"),
            ({"budget_mode": "clamp"}, 9000, "clamp"),
            ({"spend_cap_cents": None}, None, "clamp"),
            ({"spend_cap_cents": 0}, 0, "clamp"),
            ({}, 0, "clamp"),
        ):
            changed = (await plane.client.patch(path, json=body)).json()
            assert (changed["spend_cap_cents"], changed["budget_mode"]) == (cap, mode)
        assert changed["name"] == "Acme"

    run(tmp_path, test)


def test_a_cap_below_what_is_spent_leaves_nothing(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        await spend(plane, made["id"], 3_000 * 10**7)
        lowered = (await plane.client.patch(f"/v1/sub-accounts/{made['id']}", json={"spend_cap_cents": 1000})).json()
        assert (lowered["spend_cap_cents"], lowered["spent_cents"], lowered["remaining_cents"]) == (1000, 3000, 0)

    run(tmp_path, test)


def test_a_deleted_one_is_gone_and_so_are_its_keys_but_not_its_usage(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        path = f"/v1/sub-accounts/{made['id']}"
        for _ in range(2):  # again changes nothing
            reply = await plane.client.delete(path)
            assert reply.json() == {"status": "ok", "id": made["id"], "object": "sub_account", "deleted": True, "effective": True}
        assert (key_digest(SECRET, made["key"].encode()), None) in plane.pushed
        assert (await plane.get("/v1/models", headers=bearer(made["key"]))).status_code == 401
        assert (await plane.get(path)).status_code == (await plane.client.patch(path, json={"name": "x"})).status_code == 404
        assert (await plane.get("/v1/sub-accounts")).json()["data"] == []
        assert (await plane.get(f"{path}/usage")).status_code == 200
        reply = await plane.post("/v1/keys", {"name": "late", "sub_account_id": made["id"]})
        assert (reply.status_code, reply.json()["error"]["param"]) == (404, "sub_account_id")
        assert (await plane.post("/v1/sub-accounts", FULL)).status_code == 201  # its names are free again

    run(tmp_path, test)


def test_a_customer_sees_itself_and_nothing_else(tmp_path):
    async def test(plane):
        mine, other = [(await plane.post("/v1/sub-accounts", {"name": name})).json() for name in ("mine", "other")]
        headers = bearer(mine["key"])
        assert [each["id"] for each in (await plane.get("/v1/sub-accounts", headers=headers)).json()["data"]] == [mine["id"]]
        for path, status in (("", 200), ("/usage", 200)):
            assert (await plane.get(f"/v1/sub-accounts/{mine['id']}{path}", headers=headers)).status_code == status
            reply = await plane.get(f"/v1/sub-accounts/{other['id']}{path}", headers=headers)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
        for method, path in (
            ("POST", "/v1/sub-accounts"),
            ("PATCH", f"/v1/sub-accounts/{mine['id']}"),
            ("DELETE", f"/v1/sub-accounts/{mine['id']}"),
            ("POST", "/v1/budgets"),
            ("GET", "/v1/budgets"),
            ("PATCH", "/v1/balance"),
            ("GET", "/v1/keys"),
        ):
            reply = await plane.client.request(method, path, headers=headers, json={"name": "x"})
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "scope_exceeded"), path

    run(tmp_path, test)


def test_an_ordinary_key_of_the_account_sees_no_customers(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        headers = bearer((await plane.post("/v1/keys", {"name": "web"})).json()["key"])
        assert (await plane.get("/v1/sub-accounts", headers=headers)).json()["data"] == []
        assert (await plane.get(f"/v1/sub-accounts/{made['id']}", headers=headers)).status_code == 404

    run(tmp_path, test)


def test_usage_of_a_window_has_a_summary_models_and_days(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        usage = (await plane.get(f"/v1/sub-accounts/{made['id']}/usage?window=7d")).json()
        assert (usage["summary"]["requests"], usage["summary"]["cost_cents"]) == (3, 0.4389)
        assert [row["model_id"] for row in usage["by_model"]] == ["(not served)", "a,b"]
        assert [row["date"] for row in usage["by_day"]] == ["", "a,b"]
        whose = plane.usage.asked[-1][-1]
        assert (whose.account_id, whose.sub_account_id, whose.key_id) == ("acc_default", made["id"], None)
        first, last = plane.usage.asked[-1][1:3]
        assert (first, last) == (usage["from"], usage["to"]) and first < last

    run(tmp_path, test)


@pytest.mark.parametrize("window", ["0d", "30", "month", "-1d", "400d", "", "1.5d", "30d%00"])
def test_a_window_that_is_not_is_a_400(tmp_path, window):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        reply = await plane.get(f"/v1/sub-accounts/{made['id']}/usage?window={window}")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "window")

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("field", "value", "param", "words"),
    [
        ("spend_cap_cents", -1, "spend_cap_cents", "greater than or equal to 0"),
        ("spend_cap_cents", 10.5, "spend_cap_cents", "integer"),
        ("spend_cap_cents", 10**12, "spend_cap_cents", "less than or equal"),
        ("spend_cap_cents", 10**400, "spend_cap_cents", "spend_cap_cents"),
        ("spend_cap_cents", True, "spend_cap_cents", "whole number"),
        ("spend_cap_cents", "much", "spend_cap_cents", "integer"),
        ("rate_limit_rpm", 0, "rate_limit_rpm", "greater than or equal to 1"),
        ("rate_limit_rpm", 1.5, "rate_limit_rpm", "integer"),
        ("budget_mode", "soft", "budget_mode", "clamp"),
        ("allowed_models", ["openai/gpt-nope"], "allowed_models[0]", "not found"),
        ("allowed_models", ["openai/*", "gpt-5.4"], "allowed_models[1]", "not found"),
        ("default_tag", "t" * 65, "default_tag", "at most 64"),
        ("name", "", "name", "at least 1"),
        ("name", "a\0b", "name", "not allowed here"),
        ("external_ref", "r" * 201, "external_ref", "at most 200"),
        ("webhook", "x", "webhook", "no such field"),
    ],
)
def test_a_wrong_field_is_a_400_that_names_it_and_makes_nothing(tmp_path, field, value, param, words):
    async def test(plane):
        reply = await plane.post("/v1/sub-accounts", {"name": "Acme", field: value})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, param)
        assert words.lower() in error["message"].lower()
        assert (await plane.get("/v1/sub-accounts")).json()["data"] == (await plane.get("/v1/keys")).json()["data"] == []
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        reply = await plane.client.patch(f"/v1/sub-accounts/{made['id']}", json={field: value})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)

    run(tmp_path, test)


@pytest.mark.parametrize("field", ["name", "allowed_models", "budget_mode"])
def test_what_must_be_there_cannot_be_emptied(tmp_path, field):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", FULL)).json()
        reply = await plane.client.patch(f"/v1/sub-accounts/{made['id']}", json={field: None})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)

    run(tmp_path, test)


@pytest.mark.parametrize("field", ["name", "external_ref"])
def test_a_name_or_reference_in_use_is_a_409_that_says_by_whom(tmp_path, field):
    async def test(plane):
        first = (await plane.post("/v1/sub-accounts", FULL)).json()
        second = (await plane.post("/v1/sub-accounts", {"name": "Other", "external_ref": "crm-18"})).json()
        for reply in (
            await plane.post("/v1/sub-accounts", {"name": "Third", field: FULL[field]}),
            await plane.client.patch(f"/v1/sub-accounts/{second['id']}", json={field: FULL[field]}),
        ):
            error = reply.json()["error"]
            assert (reply.status_code, error["code"], error["param"]) == (409, "already_exists", field)
            assert first["id"] in error["message"] and reply.headers["x-should-retry"] == "false"
        assert len((await plane.get("/v1/sub-accounts")).json()["data"]) == len((await plane.get("/v1/keys")).json()["data"]) == 2
        assert (await plane.client.patch(f"/v1/sub-accounts/{first['id']}", json={field: FULL[field]})).status_code == 200  # its own

    run(tmp_path, test)


def test_a_pattern_that_matches_nothing_yet_is_told_of(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", {"name": "Acme", "allowed_models": ["openai/*", "opanai/*"]})).json()
        (warning,) = made["warnings"]
        assert "opanai/*" in warning

    run(tmp_path, test)


def test_they_are_listed_in_pages(tmp_path):
    async def test(plane):
        made = [(await plane.post("/v1/sub-accounts", {"name": str(number)})).json()["id"] for number in range(5)]
        first = (await plane.get("/v1/sub-accounts?limit=3")).json()
        second = (await plane.get(f"/v1/sub-accounts?limit=3&cursor={first['next_cursor']}")).json()
        assert [each["id"] for each in first["data"] + second["data"]] == sorted(made, reverse=True)
        assert second["next_cursor"] is None

    run(tmp_path, test)


@pytest.mark.parametrize("name", ["sa_x", "%00", "key_1", "SA_1", "sa_" + "1" * 300, "..%2Fkeys"])
def test_an_id_of_nobody_is_a_404(tmp_path, name):
    async def test(plane):
        for method, tail in (("GET", ""), ("PATCH", ""), ("DELETE", ""), ("GET", "/usage")):
            reply = await plane.client.request(method, f"/v1/sub-accounts/{name}{tail}", json={"name": "x"} if method == "PATCH" else None)
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    run(tmp_path, test)
