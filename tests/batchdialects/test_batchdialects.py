from __future__ import annotations

import json
import random

import pytest

from aigate.batchdialects import BATCH_DIALECTS
from aigate.batchdialects.dialect import Entry, Outcome, State
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest

OPENAI, ANTHROPIC = BATCH_DIALECTS["openai"], BATCH_DIALECTS["anthropic"]
ENTRIES = [Entry("req_a", b'{"model":"m"}'), Entry("req_b", b'{"model":"m","x":"\xc3\xa4"}')]


def target(dialect: str) -> Target:
    return Target("p/m", Provider(name="p", base_url="https://p/v1"), "m", Model(slug="p/m"), Quirks(), dialect, "/v1/x", "chat")


def reply(body: object, status: int = 200) -> HttpReply:
    return HttpReply(status=status, body=body if isinstance(body, bytes) else json.dumps(body).encode())


def test_openai_gets_a_file_of_lines_and_a_batch_that_bears_our_id() -> None:
    upload = OPENAI.upload("part_1", ENTRIES, target("openai-responses"))
    assert upload.url == "/files" and upload.headers["content-type"].startswith("multipart/form-data; boundary=")
    content = upload.body.split(b"\r\n\r\n")[2].rpartition(b"\r\n--")[0]
    assert [json.loads(line) for line in content.splitlines()] == [
        {"custom_id": "req_a", "method": "POST", "url": "/v1/responses", "body": {"model": "m"}},
        {"custom_id": "req_b", "method": "POST", "url": "/v1/responses", "body": {"model": "m", "x": "ä"}},
    ]
    submit = OPENAI.submit("part_1", ENTRIES, target("openai-chat"), OPENAI.read_upload(reply({"id": "file-1"})))
    assert json.loads(submit.body) == {
        "input_file_id": "file-1", "endpoint": "/v1/chat/completions", "completion_window": "24h", "metadata": {"aigate_part": "part_1"},
    }  # fmt: skip
    listed = {"data": [{"id": "b0", "metadata": None}, {"id": "b1", "status": "in_progress", "metadata": {"aigate_part": "part_1"}}]}
    assert OPENAI.read_look_up(reply(listed), "part_1") == State(handle="b1")
    assert OPENAI.read_look_up(reply(listed), "part_2") is None


@pytest.mark.parametrize(
    ("batch", "state"),
    [
        ({"status": "validating"}, State(handle="b")),
        ({"status": "finalizing", "output_file_id": "f"}, State(handle="b")),
        ({"status": "completed", "output_file_id": "f", "error_file_id": None}, State(handle="b", is_over=True, results=(HttpRequest(url="/files/f/content"),))),
        ({"status": "expired", "error_file_id": "e"}, State(handle="b", is_over=True, results=(HttpRequest(url="/files/e/content"),))),
        ({"status": "failed", "errors": {"data": [{"message": "too large"}]}}, State(handle="b", is_over=True, problem="too large")),
        ({"status": "failed"}, State(handle="b", is_over=True, problem="the provider refused the batch")),
    ],
)
def test_where_a_batch_of_openai_stands(batch: dict, state: State) -> None:
    assert OPENAI.read_state(reply({"id": "b", **batch})) == state


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ({"response": {"status_code": 200, "body": {"id": 1}}, "error": None}, Outcome(call_id="c", status=200, body=b'{"id": 1}')),
        ({"response": {"status_code": 429, "body": {"error": {}}}}, Outcome(call_id="c", status=429, body=b'{"error": {}}')),
        ({"response": None, "error": {"code": "batch_expired"}}, Outcome(call_id="c", problem="expired")),
        ({"response": None, "error": {"code": "batch_cancelled"}}, Outcome(call_id="c", problem="cancelled")),
        ({"response": None, "error": {"message": "?"}}, Outcome(call_id="c", problem="error")),
    ],
)
def test_what_became_of_a_line_at_openai(line: dict, outcome: Outcome) -> None:
    assert OPENAI.read_outcome(json.dumps({"custom_id": "c", **line}).encode()) == outcome


def test_anthropic_gets_all_lines_in_one_request() -> None:
    asked = target("anthropic-messages")
    assert ANTHROPIC.upload("part_1", ENTRIES, asked) is None
    submit = ANTHROPIC.submit("part_1", ENTRIES, asked, "")
    assert submit.url == "/messages/batches"
    assert json.loads(submit.body)["requests"][1] == {"custom_id": "req_b", "params": {"model": "m", "x": "ä"}}
    assert ANTHROPIC.read_state(reply({"id": "b", "processing_status": "canceling"})) == State(handle="b")
    ended = ANTHROPIC.read_state(reply({"id": "b", "processing_status": "ended", "results_url": "https://elsewhere/"}))
    assert ended == State(handle="b", is_over=True, results=(HttpRequest(url="/messages/batches/b/results"),))


@pytest.mark.parametrize(
    ("result", "outcome"),
    [
        ({"type": "succeeded", "message": {"id": 1}}, Outcome(call_id="c", status=200, body=b'{"id": 1}')),
        (
            {"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error"}}},
            Outcome(call_id="c", status=529, body=b'{"type": "error", "error": {"type": "overloaded_error"}}'),
        ),
        ({"type": "errored", "error": {"type": "new"}}, Outcome(call_id="c", status=500, body=b'{"type": "new"}')),
        ({"type": "canceled"}, Outcome(call_id="c", problem="cancelled")),
        ({"type": "expired"}, Outcome(call_id="c", problem="expired")),
        ({"type": "succeeded"}, Outcome(call_id="c", problem="error")),
    ],
)
def test_what_became_of_a_line_at_anthropic(result: dict, outcome: Outcome) -> None:
    assert ANTHROPIC.read_outcome(json.dumps({"custom_id": "c", "result": result}).encode()) == outcome


def test_whatever_comes_is_read_or_a_bad_reply() -> None:
    source = random.Random(5)
    good = [
        {"id": "b", "status": "completed", "output_file_id": "f", "metadata": {"aigate_part": "p"}, "errors": {"data": [{"message": "m"}]}},
        {"data": [{"id": "b", "metadata": {"aigate_part": "p"}}]},
        {"custom_id": "c", "response": {"status_code": 200, "body": {}}, "error": {"code": "x"}},
        {"custom_id": "c", "result": {"type": "errored", "error": {"type": "error", "error": {"type": "t"}}}},
    ]
    junk = [None, 5, "x", [], {}, [None], True, 1e9]
    for _ in range(4000):
        found = json.loads(json.dumps(source.choice(good)))
        place = found
        while isinstance(place, dict) and place:
            key = source.choice(list(place))
            if source.random() < 0.5 or not isinstance(place[key], dict):
                place[key] = source.choice(junk)
                break
            place = place[key]
        body = json.dumps(found).encode()
        body = body[: source.randrange(len(body))] if source.random() < 0.2 else body
        for dialect in (OPENAI, ANTHROPIC):
            for read in (dialect.read_state, dialect.read_upload, lambda each, dialect=dialect: dialect.read_look_up(each, "p")):
                try:
                    read(reply(body))
                except ProviderError:
                    pass
            try:
                dialect.read_outcome(body)
            except ProviderError:
                pass
