"""GET /v1/usage…: who sees whose usage, and what odd questions are told."""

import re

import pytest

from tests.api.plane import run


def test_an_admin_sees_all_and_another_key_its_own(tmp_path):
    async def test(plane):
        made = (await plane.post("/v1/keys", {"name": "web"})).json()
        mine = {"authorization": f"Bearer {made['key']}"}
        for headers, key_id in (({}, None), (mine, made["id"])):
            plane.usage.asked.clear()
            await plane.get("/v1/usage/recent?limit=7&cursor=c", headers=headers)
            await plane.get("/v1/usage/by-tag?month=2026-11", headers=headers)
            await plane.get("/v1/usage?month=2026-11", headers=headers)
            assert plane.usage.asked == [(7, "c", key_id), ("2026-11", key_id), ("2026-11", key_id)]

    run(tmp_path, test)


def test_the_month_is_this_one_unless_said(tmp_path):
    async def test(plane):
        for path in ("/v1/usage", "/v1/usage/by-tag"):
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
        assert (tagged["label"], tagged["tag"], tagged["cost_cents"]) == ("team-a", "team-a", 0)
        month = (await plane.get("/v1/usage?month=2026-11")).json()
        assert (month["month"], month["requests"], month["attempts"], month["cost_cents"]) == ("2026-11", 3, 4, 0.4389)

    run(tmp_path, test)
