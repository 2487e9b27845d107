"""GET /v1/usage…: who sees whose usage, and what odd questions are told."""

import csv
import io
import re

import pytest

from aigate.core.account import Page, Whose
from aigate.keeper.db.usage import LabelTotals
from tests.api.plane import run

BY = ("tag", "sub-account", "key", "model", "day")


def test_an_admin_sees_its_account_a_customer_its_sub_account_and_another_key_itself(tmp_path):
    async def test(plane):
        key = (await plane.post("/v1/keys", {"name": "web"})).json()
        customer = (await plane.post("/v1/sub-accounts", {"name": "acme"})).json()
        cases = (
            ({}, Whose("acc_default")),
            ({"authorization": f"Bearer {key['key']}"}, Whose("acc_default", key_id=key["id"])),
            ({"authorization": f"Bearer {customer['key']}"}, Whose("acc_default", sub_account_id=customer["id"])),
        )
        for headers, whose in cases:
            plane.usage.asked.clear()
            await plane.get("/v1/usage/recent?limit=7&cursor=c", headers=headers)
            await plane.get("/v1/usage?month=2026-11", headers=headers)
            assert plane.usage.asked == [(7, "c", whose), ("all", "2026-11", whose)]
            plane.usage.asked.clear()
            for dimension in BY:
                assert (await plane.get(f"/v1/usage/by-{dimension}?month=2026-11", headers=headers)).status_code == 200
            assert plane.usage.asked == [(dimension.replace("-", "_"), "2026-11", whose) for dimension in BY]

    run(tmp_path, test)


def test_the_month_is_this_one_unless_said(tmp_path):
    async def test(plane):
        for path in ("/v1/usage", *(f"/v1/usage/by-{dimension}" for dimension in BY)):
            assert re.fullmatch(r"\d{4}-\d{2}", (await plane.get(path)).json()["month"])

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/usage/recent?limit=0", "limit"),
        ("/v1/usage/recent?limit=1001", "limit"),
        ("/v1/usage/recent?limit=many", "limit"),
        ("/v1/usage/by-tag?month=2026-13", "month"),
        ("/v1/usage/by-tag?month=november", "month"),
        ("/v1/usage?month=2026-1", "month"),
        ("/v1/usage?month=0000-01", "month"),
        ("/v1/usage/by-day?month=2026-1%D9%A1", "month"),
        ("/v1/usage/by-model?month=", "month"),
        ("/v1/usage/by-key?month=2026-11&month=x", "month"),
    ],
)
def test_an_odd_question_is_a_400_that_names_it(tmp_path, path, param):
    async def test(plane):
        reply = await plane.get(path)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
        assert plane.usage.asked == []

    run(tmp_path, test)


def test_a_call_is_listed_with_what_clients_read(tmp_path):
    async def test(plane):
        recent = (await plane.get("/v1/usage/recent")).json()
        assert (recent["object"], recent["next_cursor"]) == ("list", "next")
        (call,) = recent["data"]
        assert call["created_at"] == "2026-11-18T11:06:40.123Z"
        wanted = {"request_id": "req_1", "model": "openai/gpt-5.4", "status": 502, "latency_ms": 812, "cost_cents": 0.4389, "tag": None}
        assert {name: call[name] for name in wanted} == wanted
        assert (call["ttft_ms"], call["error_code"], call["client_request_id"]) == (None, "provider_unavailable", "mine")

    run(tmp_path, test)


def test_sums_are_by_tag_with_a_label_that_is_never_null(tmp_path):
    async def test(plane):
        untagged, tagged = (await plane.get("/v1/usage/by-tag?month=2026-11")).json()["data"]
        assert (untagged["label"], untagged["tag"], untagged["requests"], untagged["cost_cents"]) == ("(untagged)", None, 2, 0.4389)
        assert (tagged["label"], tagged["tag"], tagged["cost_cents"]) == ("a,b", "a,b", 0)
        month = (await plane.get("/v1/usage?month=2026-11")).json()
        assert (month["month"], month["requests"], month["attempts"], month["cost_cents"]) == ("2026-11", 3, 4, 0.4389)

    run(tmp_path, test)


@pytest.mark.parametrize(("dimension", "field"), [("sub-account", "sub_account_id"), ("key", "key_id"), ("model", "model"), ("day", "date")])
def test_each_sum_names_what_it_is_of(tmp_path, dimension, field):
    async def test(plane):
        nobody, one = (await plane.get(f"/v1/usage/by-{dimension}")).json()["data"]
        assert (nobody[field], one[field], one["label"]) == (None, "a,b", "a,b")
        assert isinstance(nobody["label"], str)

    run(tmp_path, test)


def test_keys_and_sub_accounts_are_called_by_their_names(tmp_path):
    class Used:
        def __init__(self):
            self.ids = []

        async def by(self, dimension, month, whose):
            return [LabelTotals(1, 1, 10_000_000, 1, 1, label=id_) for id_ in self.ids]

    used = Used()

    async def test(plane):
        made = (await plane.post("/v1/sub-accounts", {"name": "acme"})).json()
        await plane.client.delete(f"/v1/sub-accounts/{made['id']}")  # its past stays its own
        for dimension, id_ in (("sub-account", made["id"]), ("key", made["key_id"])):
            used.ids = [id_]
            (row,) = (await plane.get(f"/v1/usage/by-{dimension}")).json()["data"]
            assert (row["label"], row["name"], row["cost_cents"]) == ("acme", "acme", 1)

    run(tmp_path, test, usage=used)


def test_a_list_comes_in_pages_where_these_are_asked_for(tmp_path):
    async def test(plane):
        first = (await plane.get("/v1/usage/by-tag?month=2026-11&limit=1")).json()
        assert ([row["tag"] for row in first["data"]], first["next_cursor"]) == ([None], "=")
        last = (await plane.get("/v1/usage/by-tag", params={"month": "2026-11", "limit": 2, "cursor": "=a,b"})).json()
        assert (len(last["data"]), last["next_cursor"]) == (2, None)
        whose = Whose("acc_default")
        assert plane.usage.asked == [("tag", "2026-11", whose, Page(2)), ("tag", "2026-11", whose, Page(3, "a,b"))]
        for query, param in (("limit=0", "limit"), ("limit=1001", "limit"), ("cursor=x", "cursor"), ("limit=5&format=csv", "limit")):
            reply = await plane.get("/v1/usage/by-key?" + query)
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)

    run(tmp_path, test)


@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"headers": {"accept": "text/csv;q=0.9, */*"}}])
def test_a_list_may_be_had_as_csv(tmp_path, how):
    async def test(plane):
        reply = await plane.get("/v1/usage/by-tag", **how)
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        assert list(csv.reader(io.StringIO(reply.text))) == [
            ["label", "tag", "requests", "attempts", "cost_cents", "input_tokens", "output_tokens"],
            ["(untagged)", "", "2", "3", "0.4389", "10", "20"],
            ["a,b", "a,b", "1", "1", "0.0", "1", "2"],
        ]

    run(tmp_path, test)


def test_a_format_that_is_not_is_a_400(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/usage/by-tag?format=xml")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "format")
        assert (await plane.get("/v1/usage/by-tag?format=json", headers={"accept": "text/csv"})).json()["object"] == "list"

    run(tmp_path, test)
