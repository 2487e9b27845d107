"""The real `google-genai` SDK, unmodified, against a real gateway: the simulated provider (OpenAI chat) behind it, and a provider of its own
format that replays recordings; and the `openai` SDK on that provider."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from google import genai
from google.genai import errors, types
from openai import OpenAI

from tests.dialects.gemini_traffic import plain_replies, streams
from tests.dialects.recorded import needs_recordings
from tests.e2e.replay import Bench, bench

HELLO: Any = [{"role": "user", "content": "hello there"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
SIGNED: Any = {
    "candidates": [
        {"content": {"role": "model", "parts": [
            {"functionCall": {"name": "weather", "args": {"city": "Bonn"}}, "thoughtSignature": "c2lnbmVk"},
            {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
        ]}, "finishReason": "STOP"}
    ],
    "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7, "thoughtsTokenCount": 3, "totalTokenCount": 15},
    "modelVersion": "gemini-9", "responseId": "reply_1",
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A gateway whose provider `gem` replays what it is told to, in Gemini's format."""
    config = (
        '[providers.gem]\ndialect = "gemini"\nbase_url = "{url}"\napi_key = "sk-of-the-provider"\n'
        'unpriced = "allow"\n[routing]\nmax_attempts = 1\n'
    )
    with bench(tmp_path_factory.mktemp("gemini"), config) as running:
        yield running


@pytest.fixture
def client(served: Bench) -> genai.Client:
    return genai.Client(api_key=served.gateway.key, http_options=types.HttpOptions(base_url=served.gateway.url))


@pytest.fixture
def chat(served: Bench) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.gateway.url + "/v1", api_key=served.gateway.key, max_retries=0) as made:
        yield made


def sse(*chunks: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n" for chunk in chunks)


def post(served: Bench, path: str, body: object, **headers: str) -> tuple[int, str, bytes]:
    """(status, content type, body) of a call with no headers but these."""
    request = urllib.request.Request(served.gateway.url + path, json.dumps(body).encode(), headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.status, reply.headers["content-type"], reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["content-type"], error.read()


# --- a Gemini client on a provider of another format -----------------------------------------------------------------------


def test_text_is_answered_by_a_provider_of_another_format(client: genai.Client) -> None:
    config = types.GenerateContentConfig(system_instruction="be kind", max_output_tokens=64, temperature=0.5)
    reply = client.models.generate_content(model="sim/echo", contents="hello there", config=config)
    assert reply.text is not None and "hello there" in reply.text
    assert (reply.model_version, reply.candidates[0].finish_reason) == ("sim/echo", types.FinishReason.STOP)  # type: ignore[index]
    usage = reply.usage_metadata
    assert usage.prompt_token_count > 0 and usage.total_token_count == usage.prompt_token_count + usage.candidates_token_count  # type: ignore[union-attr,operator]


def test_a_stream_folds_to_the_plain_text_and_ends_with_usage(client: genai.Client) -> None:
    plain = client.models.generate_content(model="sim/echo", contents="hello there")
    chunks = list(client.models.generate_content_stream(model="sim/echo", contents="hello there"))
    assert "".join(chunk.text or "" for chunk in chunks) == plain.text
    assert chunks[-1].usage_metadata == plain.usage_metadata
    assert len(chunks) > 2 and all(chunk.usage_metadata is None for chunk in chunks[:-1])


def test_a_chat_keeps_its_history_over_turns(client: genai.Client) -> None:
    talk = client.chats.create(model="sim/echo")
    for _ in talk.send_message_stream("first words"):
        pass
    assert "second words" in (talk.send_message("second words").text or "")
    roles = [content.role for content in talk.get_history(curated=True)]
    assert roles.count("user") == 2 and roles[0] == "user" and roles[-1] == "model"


def test_without_alt_sse_a_stream_is_one_json_array(served: Bench) -> None:
    body = {"contents": [{"parts": [{"text": "hello there"}]}]}
    key = {"x-goog-api-key": served.gateway.key, "content-type": "application/json"}
    status, kind, out = post(served, "/v1beta/models/sim/echo:streamGenerateContent", body, **key)
    chunks = json.loads(out)
    assert (status, kind) == (200, "application/json")
    assert "hello there" in "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks)
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP" and chunks[-1]["usageMetadata"]["totalTokenCount"] > 0


@pytest.mark.parametrize("model", ["sim/echo", "sim%2Fecho"])
def test_the_key_may_come_in_the_query_and_a_name_may_be_encoded(served: Bench, model: str) -> None:
    body = {"contents": [{"parts": [{"text": "hello there"}]}]}
    path = f"/v1beta/models/{model}:generateContent?key="
    assert post(served, path + served.gateway.key, body)[0] == 200
    status, _, out = post(served, path + "nonsense", body)
    assert (status, json.loads(out)["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert b"nonsense" not in out


def test_tokens_are_counted_without_a_model_call(client: genai.Client, served: Bench) -> None:
    assert (client.models.count_tokens(model="sim/echo", contents="one two three").total_tokens or 0) >= 3
    served.replay.answer(200, "application/json", b'{"totalTokens": 31}')
    assert client.models.count_tokens(model="gem/gemini-9", contents="hi").total_tokens == 31
    assert served.replay.path == "/v1/models/gemini-9:countTokens"
    asked = json.loads(served.replay.request)["generateContentRequest"]
    assert asked == {"model": "models/gemini-9", "contents": [{"parts": [{"text": "hi"}], "role": "user"}]}


# --- errors ------------------------------------------------------------------------------------------------------------------


def test_errors_come_in_the_shape_the_sdk_reads(client: genai.Client) -> None:
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="nobody/nothing", contents="hi")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")
    assert "nobody/nothing" in (caught.value.message or "")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "contents"),
        ({"contents": []}, "contents"),
        ({"contents": "hi"}, "contents"),
        ({"contents": ["hi"]}, "contents"),
        ({"contents": [{}], "generationConfig": {"maxOutputTokens": "many"}}, "generationConfig.maxOutputTokens"),
        ({"contents": [{}], "generationConfig": []}, "generationConfig"),
        ({"contents": [{}], "generation_config": {"thinking_config": {"thinking_budget": -2}}}, "generationConfig.thinkingConfig.thinkingBudget"),
    ],
)
def test_bad_input_is_refused_with_the_fields_path(served: Bench, body: object, field: str) -> None:
    key = {"x-goog-api-key": served.gateway.key, "content-type": "application/json"}
    status, _, out = post(served, "/v1beta/models/sim/echo:generateContent", body, **key)
    error = json.loads(out)["error"]
    assert (status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert field in error["message"]


def test_an_unknown_action_is_told_what_there_is(served: Bench) -> None:
    status, _, out = post(served, f"/v1beta/models/sim/echo:embedContent?key={served.gateway.key}", {})
    assert status == 404
    assert "generateContent" in json.loads(out)["error"]["message"]


# --- a provider that speaks Gemini -----------------------------------------------------------------------------------------


def test_a_request_of_its_own_format_arrives_as_it_was_sent(client: genai.Client, served: Bench) -> None:
    served.replay.answer(200, "application/json", json.dumps(SIGNED).encode())
    config = types.GenerateContentConfig(top_k=3, thinking_config=types.ThinkingConfig(thinking_level="LOW", include_thoughts=True))  # type: ignore[arg-type]
    reply = client.models.generate_content(model="gem/gemini-9", contents="hi", config=config)
    assert served.replay.path == "/v1/models/gemini-9:generateContent"
    assert served.replay.headers["x-goog-api-key"] == "sk-of-the-provider"
    sent = json.loads(served.replay.request)
    assert sent["generationConfig"] == {"topK": 3, "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}}
    assert reply.candidates[0].content.parts[0].thought_signature == b"signed"  # type: ignore[index,union-attr]
    assert [call.args for call in reply.function_calls or ()] == [{"city": "Bonn"}, {"city": "Rome"}]


def test_the_chat_sdk_runs_two_parallel_tools_and_brings_the_signature_back(chat: OpenAI, served: Bench) -> None:
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
    for is_stream in (False, True):
        served.replay.answer(200, *(("text/event-stream", sse(SIGNED)) if is_stream else ("application/json", json.dumps(SIGNED).encode())))
        if is_stream:
            with chat.chat.completions.stream(model="gem/gemini-9", messages=HELLO, tools=tools) as stream:
                message = stream.get_final_completion().choices[0].message
            assert served.replay.path == "/v1/models/gemini-9:streamGenerateContent?alt=sse"
        else:
            message = chat.chat.completions.create(model="gem/gemini-9", messages=HELLO, tools=tools).choices[0].message
        made: Any = message.tool_calls
        assert [json.loads(call.function.arguments) for call in made] == [{"city": "Bonn"}, {"city": "Rome"}]
        results: Any = [{"role": "tool", "tool_call_id": call.id, "content": f"sun {place}"} for place, call in enumerate(made)]
        history = message.to_dict() if not is_stream else json.loads(message.model_dump_json(exclude_none=True))
        served.replay.answer(200, "application/json", json.dumps(SIGNED).encode())
        chat.chat.completions.create(model="gem/gemini-9", messages=[*HELLO, history, *results], tools=tools)
        _, calls, answers = json.loads(served.replay.request)["contents"]
        assert [part.get("thoughtSignature") for part in calls["parts"]] == ["c2lnbmVk", None]
        assert [part["functionResponse"] for part in answers["parts"]] == [
            {"name": "weather", "response": {"output": "sun 0"}}, {"name": "weather", "response": {"output": "sun 1"}}
        ]  # fmt: skip


def test_structured_output_and_images_reach_the_provider(chat: OpenAI, served: Bench) -> None:
    served.replay.answer(200, "application/json", json.dumps(SIGNED).encode())
    content: Any = [{"type": "text", "text": "what?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}]
    form: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": CITY}}
    chat.chat.completions.create(model="gem/gemini-9", messages=[{"role": "user", "content": content}], response_format=form, reasoning_effort="low")
    sent = json.loads(served.replay.request)
    assert sent["contents"][0]["parts"] == [{"text": "what?"}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}]
    assert sent["generationConfig"] == {
        "responseMimeType": "application/json", "responseJsonSchema": CITY, "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": True}
    }  # fmt: skip


def test_an_error_within_a_stream_is_told_in_the_stream(client: genai.Client, served: Bench) -> None:
    chunk = {"candidates": [{"content": {"parts": [{"text": "so"}], "role": "model"}}]}
    fault = b'{"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}'
    served.replay.answer(200, "text/event-stream", sse(chunk) + fault)
    with pytest.raises(errors.APIError, match="Overloaded"):
        list(client.models.generate_content_stream(model="gem/gemini-9", contents="hi"))


def test_a_bad_key_of_ours_is_not_the_clients_fault(client: genai.Client, served: Bench) -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]
    fault = {"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": details}}
    served.replay.answer(400, "application/json", json.dumps(fault).encode())
    with pytest.raises(errors.ServerError) as caught:
        client.models.generate_content(model="gem/gemini-9", contents="hi")
    assert caught.value.code == 502


@needs_recordings
def test_the_sdk_reads_every_recording_of_its_own_format(client: genai.Client, served: Bench) -> None:
    for record in plain_replies():
        served.replay.answer(200, "application/json", record["response"].encode())
        reply = client.models.generate_content(model="gem/gemini-9", contents="hi")
        assert reply.model_version == "gem/gemini-9", record["id"]
    for record in streams():
        served.replay.answer(200, "text/event-stream", record["response"].encode())
        chunks = list(client.models.generate_content_stream(model="gem/gemini-9", contents="hi"))
        assert (chunks[-1].usage_metadata.total_token_count or 0) > 0, record["id"]  # type: ignore[union-attr]


@needs_recordings
def test_the_chat_sdk_reads_every_recorded_stream(chat: OpenAI, served: Bench) -> None:
    for record in streams():
        served.replay.answer(200, "text/event-stream", record["response"].encode())
        with chat.chat.completions.stream(model="gem/gemini-9", messages=HELLO, stream_options={"include_usage": True}) as stream:
            final = stream.get_final_completion()
        sent = [json.loads(line[6:]) for line in record["response"].splitlines() if line.startswith("data: ")]
        parts = [part for chunk in sent for candidate in chunk.get("candidates", ()) for part in candidate.get("content", {}).get("parts", ())]
        assert (final.choices[0].message.content or "") == "".join(part["text"] for part in parts if "text" in part and not part.get("thought"))
        assert len(final.choices[0].message.tool_calls or ()) == sum("functionCall" in part for part in parts)
        assert final.usage is not None and final.usage.completion_tokens > 0
