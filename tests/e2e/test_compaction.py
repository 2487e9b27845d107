"""POST /v1/responses/compact with the real `openai` SDK: the provider's own where it has one, else a summary that goes on like one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.replay import Bench, bench

# The SDK documents that user messages come back, and has no type for them among its output items.
pytestmark = pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")

SETTINGS = """
[routing]
max_attempts = 1
[providers.openai]
base_url = "{url}"
api_key = "sk-of-the-provider"
[providers.claude]
dialect = "anthropic-messages"
base_url = "{url}"
api_key = "sk-of-the-provider"
unpriced = "allow"
[providers.mock]
dialect = "openai-responses"
base_url = "{url}"
api_key = "sk-of-the-provider"
unpriced = "allow"
"""
CALL = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'}
PIXEL = "data:image/png;base64,iVBORw0KGgo="
TALK: Any = [
    {"role": "user", "content": "weather in Rome?"},
    {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "opaque"},
    CALL,
    {"type": "function_call_output", "call_id": "call_1", "output": "rain, 12 degrees"},
    {"role": "assistant", "content": "It rains."},
    {"role": "user", "content": [{"type": "input_text", "text": "and here?"}, {"type": "input_image", "image_url": PIXEL, "detail": "auto"}]},
]  # fmt: skip
USAGE = {"input_tokens": 90, "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0}, "output_tokens": 9, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 99}
NATIVE = {
    "id": "resp_c", "object": "response.compaction", "created_at": 1_700_000_000, "usage": USAGE,
    "output": [{"id": "msg_1", "type": "message", "role": "user", "status": "completed", "content": [{"type": "input_text", "text": "weather in Rome?"}]},
               {"id": "cmp_1", "type": "compaction", "encrypted_content": "of the vendor"}],
}  # fmt: skip
MESSAGE = {
    "id": "msg_9", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Rome: rain, 12 degrees."}],
    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 30, "output_tokens": 8},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("compaction"), SETTINGS) as running:
        yield running


@pytest.fixture
def client(served: Bench) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.gateway.url + "/v1", api_key=served.gateway.key, max_retries=0) as made:
        yield made


def test_a_provider_that_can_does_it_itself(served: Bench, client: OpenAI) -> None:
    served.replay.answer(200, "application/json", json.dumps(NATIVE).encode())
    raw = client.responses.with_raw_response.compact(model="openai/gpt-5.2", input=TALK, instructions="be kind", prompt_cache_key="k")
    compacted = raw.parse()
    assert compacted.to_dict() == {**NATIVE, "usage": {**USAGE, "cost": pytest.approx(90 * 1.75e-6 + 9 * 14e-6)}}
    assert "x-aig-warning" not in raw.headers and float(raw.headers["x-cost-cents"]) > 0
    assert served.replay.path == "/v1/responses/compact"
    assert json.loads(served.replay.request) == {"model": "gpt-5.2", "input": TALK, "instructions": "be kind", "prompt_cache_key": "k"}
    row = served.attempts()[raw.headers["x-request-id"]]
    assert (row["end"], row["input_tokens"], row["output_tokens"]) == ("complete", 90, 9)


@pytest.mark.parametrize("model", ["claude/claude-9", "mock/gpt"])
def test_any_other_model_is_asked_for_a_summary_that_goes_on_anywhere(served: Bench, client: OpenAI, model: str) -> None:
    answer = MESSAGE
    if model.startswith("mock"):
        answer = {"id": "resp_9", "object": "response", "created_at": 1, "status": "completed", "model": "m", "usage": {**USAGE, "input_tokens": 30, "output_tokens": 8},
                  "output": [{"id": "msg_9", "type": "message", "role": "assistant", "status": "completed",
                              "content": [{"type": "output_text", "text": "Rome: rain, 12 degrees.", "annotations": []}]}]}  # fmt: skip
    served.replay.answer(200, "application/json", json.dumps(answer).encode())
    raw = client.responses.with_raw_response.compact(model=model, input=TALK, instructions="be kind")
    assert 'emulated;param="compact"' in raw.headers["x-aig-warning"]
    sent = served.replay.request.decode()
    assert all(words in sent for words in ("be kind", "weather in Rome?", "call_1", "rain, 12 degrees", "It rains.", "iVBORw0KGgo="))
    assert "tool_use" not in sent and '"function_call"' not in sent and "opaque" not in sent
    compacted = raw.parse()
    assert (compacted.object, compacted.usage.input_tokens, compacted.usage.output_tokens) == ("response.compaction", 30, 8)
    users, item = compacted.output[:-1], compacted.output[-1]
    assert [user.content[0].text for user in users] == ["weather in Rome?", "and here?"]  # type: ignore[union-attr]
    assert item.type == "compaction" and "rain" not in item.encrypted_content
    # The whole of it back as input, on a provider of each format: the summary is words there, and the vendor is never shown our seal.
    given: Any = [*(each.to_dict() for each in compacted.output), {"role": "user", "content": "go on"}]
    for other, answered in (("claude/claude-9", MESSAGE), ("openai/gpt-5.2", NATIVE | {"object": "response", "status": "completed", "model": "m"})):
        served.replay.answer(200, "application/json", json.dumps(answered).encode())
        client.responses.create(model=other, input=given, max_output_tokens=99)
        sent = served.replay.request.decode()
        assert "Rome: rain, 12 degrees." in sent and "YWlnYXRl" not in sent and '"compaction"' not in sent
    served.replay.answer(200, "application/json", json.dumps(NATIVE).encode())
    client.responses.compact(model="openai/gpt-5.2", input=given)  # and once more, by the vendor itself
    sent = json.loads(served.replay.request)["input"]
    assert "Rome: rain, 12 degrees." in json.dumps(sent) and all(item["type"] == "message" for item in sent)


def test_a_kept_conversation_is_compacted_by_its_id(served: Bench, client: OpenAI) -> None:
    first = client.responses.create(model="sim/echo", input="my name is Ada")
    compacted = client.responses.compact(model="sim/echo", previous_response_id=first.id)
    assert compacted.output[0].content[0].text == "my name is Ada"  # type: ignore[union-attr]
    assert compacted.output[-1].type == "compaction"
    again = client.responses.create(model="sim/echo", input=[*(item.to_dict() for item in compacted.output), {"role": "user", "content": "who am I?"}])  # type: ignore[misc]
    assert "who am I?" in again.output_text
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(compacted.id)  # it is no response that one goes on from by its id


@pytest.mark.parametrize(
    ("more", "param"),
    [({}, "input"), ({"input": []}, "input"), ({"input": {}}, "input"), ({"input": "a", "stream": True}, "stream"), ({"input": "a", "previous_response_id": 3}, "previous_response_id")],
)
def test_what_cannot_be_compacted_is_refused_by_its_field(served: Bench, more: dict[str, Any], param: str) -> None:
    status, _, body = served.gateway.request("POST", "/v1/responses/compact", {"model": "sim/echo", **more})
    assert (status, body["error"]["param"]) == (400, param)


def test_a_strict_caller_gets_no_imitation(served: Bench, client: OpenAI) -> None:
    served.replay.request = b""
    with pytest.raises(openai.BadRequestError, match="compact"):
        client.responses.compact(model="claude/claude-9", input=TALK, extra_headers={"x-aig-strict": "true"})
    assert served.replay.request == b""


def test_a_model_that_says_nothing_is_an_error(served: Bench, client: OpenAI) -> None:
    served.replay.answer(200, "application/json", json.dumps({**MESSAGE, "content": []}).encode())
    with pytest.raises(openai.APIStatusError, match="no summary") as caught:
        client.responses.compact(model="claude/claude-9", input="hello")
    assert caught.value.status_code == 502
