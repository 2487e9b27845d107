"""/v1/budgets: caps on tags."""

import pytest

from aigate.core.budget import TAG
from aigate.keeper.db.balances import add_budgets
from aigate.keeper.db.ledger_rows import write_sums
from aigate.keeper.db.limits import this_month
from aigate.keeper.db.tables import windows
from tests.api.plane import run


def test_a_budget_lives_from_post_to_delete(tmp_path):
    async def test(plane):
        reply = await plane.post("/v1/budgets", {"tag": "team/a", "monthly_cap_cents": 500})
        made = reply.json()
        assert (reply.status_code, made["effective"], made["tag"], made["label"], made["monthly_cap_cents"]) == (201, True, "team/a", "team/a", 500)
        again = await plane.post("/v1/budgets", {"tag": "team/a", "monthlyCapCents": 900, "budget_mode": "hard"})
        assert (again.status_code, again.json()["monthly_cap_cents"], again.json()["budget_mode"]) == (200, 900, "hard")
        (listed,) = (await plane.get("/v1/budgets")).json()["data"]
        for name in ("team/a", "team%2Fa"):
            assert (await plane.get(f"/v1/budgets/{name}")).json() == listed
        gone = (await plane.client.delete("/v1/budgets/team/a")).json()
        assert (gone["status"], gone["deleted"], gone["effective"]) == ("ok", True, True)
        assert (await plane.get("/v1/budgets")).json()["data"] == []
        for method in ("GET", "DELETE"):
            reply = await plane.client.request(method, "/v1/budgets/team/a")
            assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    run(tmp_path, test)


def test_budgets_come_in_pages_by_tag(tmp_path):
    async def test(plane):
        tags = ["é", "a", "B", "a/b", "z=1&2"]
        for tag in tags:
            await plane.post("/v1/budgets", {"tag": tag, "monthly_cap_cents": 5})
        await plane.client.delete("/v1/budgets/B")
        found, cursor = [], None
        for _ in range(3):
            page = (await plane.get("/v1/budgets", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
            found += [row["tag"] for row in page["data"]]
            if (cursor := page["next_cursor"]) is None:
                break
        assert found == sorted(set(tags) - {"B"}) and cursor is None

    run(tmp_path, test)


def test_what_the_tag_has_spent_before_counts(tmp_path):
    def spend(connection):
        owner = (TAG, "acc_default", "old")
        budget_id = add_budgets(connection, [owner], 0)[owner]
        write_sums(connection, windows, {(budget_id, this_month()): [30_000_000, 0, 0, 1, 1, 5, 5]})

    async def test(plane):
        await plane.database.write(spend)
        made = (await plane.post("/v1/budgets", {"tag": "old", "monthly_cap_cents": 10})).json()
        assert (made["spent_cents"], made["remaining_cents"], made["month"]) == (3, 7, this_month())

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"monthly_cap_cents": 5}, "tag"),
        ({"tag": "a"}, "monthly_cap_cents"),
        ({"tag": "", "monthly_cap_cents": 5}, "tag"),
        ({"tag": "t" * 65, "monthly_cap_cents": 5}, "tag"),
        ({"tag": "a\n", "monthly_cap_cents": -1}, "monthly_cap_cents"),
        ({"tag": "a", "monthly_cap_cents": None}, "monthly_cap_cents"),
        ({"tag": "a", "monthly_cap_cents": 0.5}, "monthly_cap_cents"),
        ({"tag": "a", "monthly_cap_cents": 5, "window": "day"}, "window"),
    ],
)
def test_a_wrong_body_is_a_400(tmp_path, body, param):
    async def test(plane):
        reply = await plane.post("/v1/budgets", body)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
        assert (await plane.get("/v1/budgets")).json()["data"] == []

    run(tmp_path, test)


def test_a_tag_that_is_too_long_is_a_400_in_the_path_too(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/budgets/" + "t" * 65)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "tag")

    run(tmp_path, test)
