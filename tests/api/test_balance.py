"""/v1/balance: the account's credit, and what a customer is shown in its place."""

import pytest

from tests.api.plane import run


def test_a_balance_is_unlimited_until_set(tmp_path):
    async def test(plane):
        balance = (await plane.get("/v1/balance")).json()
        assert (balance["is_unlimited"], balance["balance_cents"], balance["credit_cents"], balance["resets_at"]) == (True, None, None, None)
        assert (balance["recent_spend_cents"], balance["scope"]) == (0.4389, "account")

    run(tmp_path, test)


def test_credit_is_set_raised_and_taken_away(tmp_path):
    async def test(plane):
        for body, credit in (
            ({"credit_cents": 1000}, 1000),
            ({"addCents": 500}, 1500),
            ({"budget_mode": "hard"}, 1500),
            ({"credit_cents": 0}, 0),
            ({"add_cents": 7}, 7),
            ({}, 7),
            ({"credit_cents": None}, None),
        ):
            reply = await plane.client.patch("/v1/balance", json=body)
            changed = reply.json()
            assert (reply.status_code, changed["credit_cents"], changed["balance_cents"], changed["effective"]) == (200, credit, credit, True)
        assert changed["budget_mode"] == "hard"

    run(tmp_path, test)


def test_a_customer_is_shown_its_own_cap_and_not_the_accounts_money(tmp_path):
    async def test(plane):
        await plane.client.patch("/v1/balance", json={"credit_cents": 123_456})
        made = (await plane.post("/v1/sub-accounts", {"name": "acme", "spend_cap_cents": 40})).json()
        balance = (await plane.get("/v1/balance", headers={"authorization": f"Bearer {made['key']}"})).json()
        assert (balance["scope"], balance["balance_cents"]) == ("sub_account", 40)
        assert "123456" not in str(balance)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"credit_cents": -1}, "credit_cents"),
        ({"add_cents": 1.5}, "add_cents"),
        ({"add_cents": None}, "add_cents"),
        ({"add_cents": 1, "credit_cents": 1}, "add_cents"),
        ({"credit": 1}, "credit"),
    ],
)
def test_a_wrong_change_is_a_400(tmp_path, body, param):
    async def test(plane):
        reply = await plane.client.patch("/v1/balance", json=body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
        assert (await plane.get("/v1/balance")).json()["is_unlimited"]

    run(tmp_path, test)


def test_credit_cannot_grow_beyond_what_can_be_counted(tmp_path):
    async def test(plane):
        assert (await plane.client.patch("/v1/balance", json={"add_cents": 10**11})).status_code == 200
        reply = await plane.client.patch("/v1/balance", json={"add_cents": 1})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "add_cents")
        assert (await plane.get("/v1/balance")).json()["credit_cents"] == 10**11

    run(tmp_path, test)
