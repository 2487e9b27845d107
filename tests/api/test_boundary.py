"""The edge of the control plane: request ids, unknown paths and methods, bugs and outages as envelopes, nothing secret in the log."""

import pytest

from aigate.errors import GatewayError
from tests.api.plane import ROOT_KEY, run


def error_of(reply):
    error = reply.json()["error"]
    assert error["status"] == reply.status_code
    assert reply.headers["x-request-id"] == error["request_id"]
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-should-retry"] == ("true" if error["retryable"] else "false")
    return error


def test_every_reply_carries_the_worker_s_request_id(tmp_path):
    async def test(plane):
        for path in ("/v1/models", "/readyz", "/nothing"):
            reply = await plane.get(path, headers={"x-aig-request-id": "req_abc123"})
            assert reply.headers.get_list("x-request-id") == ["req_abc123"]

    run(tmp_path, test)


def test_a_request_without_an_id_or_with_an_odd_one_gets_one_of_ours(tmp_path):
    async def test(plane):
        for headers in ({}, {"x-aig-request-id": "a b"}, {"x-aig-request-id": "x" * 200}):
            assert (await plane.get("/readyz", headers=headers)).headers["x-request-id"].startswith("req_")

    run(tmp_path, test)


def test_an_unknown_path_is_a_404_and_a_wrong_method_a_405_that_says_what_is_allowed(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/nothing")
        assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
        reply = await plane.client.delete("/v1/models")
        assert (reply.status_code, error_of(reply)["code"], reply.headers["allow"]) == (405, "method_not_allowed", "GET")

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/completion", "/v1/chat/completions"),
        ("/v1/Embeddings", "/v1/embeddings"),
        ("/models", "/v1/models"),
        ("/v1/usage/recents", "/v1/usage/recent"),
        ("/v1/nothing", None),
        ("/", None),
        ("/" + "x" * 5000, None),
    ],
)
def test_a_path_that_is_nearly_one_of_ours_is_told_it(tmp_path, path, meant):
    async def test(plane):
        reply = await plane.get(path)
        message = error_of(reply)["message"]
        assert reply.status_code == 404 and len(message) < 300
        assert (f"did you mean {meant}?" in message) if meant else ("did you mean" not in message)

    run(tmp_path, test)


def test_what_can_be_got_has_a_head(tmp_path):
    async def test(plane):
        for path, due in (("/readyz", 200), ("/v1/models", 200), ("/v1/models/openai/gpt-5.4", 200), ("/v1/nothing", 404)):
            got, head = await plane.get(path), await plane.client.head(path)
            assert (head.status_code, head.headers["content-length"]) == (due, got.headers["content-length"])

    run(tmp_path, test)


def test_a_wrong_form_is_told_in_words(tmp_path):
    async def test(plane):
        for path, words in (("/v1/usage?month=2026-13", "month: must be a month, YYYY-MM"), ("/v1/usage/by-tag?cursor=x", "cursor: must be the next_cursor")):
            assert error_of(await plane.get(path))["message"].startswith(words)

    run(tmp_path, test)


def test_one_trailing_slash_makes_no_difference(tmp_path):
    async def test(plane):
        assert (await plane.get("/v1/models/")).status_code == 200
        assert (await plane.get("/")).status_code == 404

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("headers", "words"),
    [({"authorization": ""}, "no bearer key"), ({"authorization": "Bearer nonsense"}, "malformed"), ({"authorization": "Bearer sk-aig-" + "A" * 43}, "unknown")],
)
def test_a_bad_key_is_a_401(tmp_path, headers, words):
    async def test(plane):
        for path in ("/v1/models", "/v1/models/openai/gpt-5.4", "/v1/usage", "/v1/usage/recent", "/v1/keys", "/v1/capabilities", "/v1/health/providers"):
            error = error_of(await plane.get(path, headers=headers))
            assert (error["status"], error["type"], error["code"]) == (401, "authentication_error", "invalid_key")
            assert words in error["message"]

    run(tmp_path, test)


def failing_with(error):
    class Broken:
        async def by(self, dimension, month, whose):
            raise error

    return Broken()


def test_a_bug_is_a_500_that_is_logged_by_place_without_its_words(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/usage", headers={"x-aig-request-id": "req_1"})
        error = error_of(reply)
        assert (reply.status_code, error["code"], error["origin"]) == (500, "internal_error", "gateway")
        assert "req_1" in error["message"]
        (line,) = plane.logged
        assert "req_1" in line and "KeyError" in line and "test_boundary.py" in line
        assert "secret" not in line + reply.text and ROOT_KEY not in line

    run(tmp_path, test, usage=failing_with(KeyError("a secret")))


def test_an_outage_of_the_database_is_a_retryable_503(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/usage")
        error = error_of(reply)
        assert (reply.status_code, error["code"], error["retryable"]) == (503, "ledger_unavailable", True)
        assert reply.headers["retry-after"] == "1"

    run(tmp_path, test, usage=failing_with(ConnectionError("db")))


def test_an_error_of_ours_is_shown_as_it_is(tmp_path):
    async def test(plane):
        error = error_of(await plane.get("/v1/usage"))
        assert (error["status"], error["retry_after_s"]) == (503, 0.4)

    run(tmp_path, test, usage=failing_with(GatewayError("later", status=503, retryable=True, retry_after_s=0.4)))


def test_the_openapi_document_names_every_route(tmp_path):
    async def test(plane):
        document = (await plane.get("/openapi.json")).json()
        assert {"/v1/models", "/v1/models/{model_id}", "/v1/keys", "/v1/keys/{key_id}", "/v1/usage/recent", "/readyz"} <= set(document["paths"])

    run(tmp_path, test)
