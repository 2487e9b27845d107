"""The simulated provider in the formats beside OpenAI chat: the vendors' own SDKs read it, and what their documents forbid is refused in their
shape, so that a wrong translation does not pass."""

import json

import pytest
from anthropic import Anthropic
from google import genai
from google.genai import types
from openai import OpenAI

from aigate.sim.check import sign

ROOT = "http://127.0.0.1:{}"
VERSION = {"anthropic-version": "2023-06-01"}
HI = [{"role": "user", "content": "hello there"}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}


def claude(sim):
    return Anthropic(base_url=ROOT.format(sim.port), api_key="k", max_retries=0)


def gpt(sim):
    return OpenAI(base_url=sim.base_url, api_key="k", max_retries=0)


def gemini(sim):
    return genai.Client(api_key="k", http_options=types.HttpOptions(base_url=ROOT.format(sim.port)))


# --- what the SDKs read ---------------------------------------------------------------------------------------------------------------


def test_messages_think_call_tools_and_count(sim):
    client = claude(sim)
    tools = [{"name": "weather", "input_schema": CITY}, {"name": "clock", "input_schema": CITY}]
    with client.messages.stream(model="tools-2+reasoning-5+cached", max_tokens=4000, messages=HI, tools=tools) as stream:
        said = stream.get_final_message()
    plain = client.messages.create(model="tools-2+reasoning-5+cached", max_tokens=4000, messages=HI, tools=tools)
    assert [block.type for block in said.content] == ["thinking", "tool_use", "tool_use"] == [block.type for block in plain.content]
    assert [block.name for block in said.content[1:]] == ["weather", "clock"]
    assert said.usage.cache_read_input_tokens and said.usage.output_tokens_details.thinking_tokens == 5
    results = [{"type": "tool_result", "tool_use_id": block.id, "content": f"{block.name}: fine"} for block in said.content[1:]]
    history = [*HI, {"role": "assistant", "content": said.content}, {"role": "user", "content": results}]
    answer = client.messages.create(model="tools-2+reasoning-5", max_tokens=4000, messages=history, tools=tools)
    assert "weather: fine clock: fine" in answer.content[-1].text


def test_responses_reason_only_as_asked(sim):
    client = gpt(sim)
    silent = client.responses.create(model="reasoning-5", input="hello")
    assert silent.output[0].summary == [] and silent.output[0].encrypted_content is None
    with client.responses.stream(model="reasoning-5", input="hello", reasoning={"summary": "auto"}, include=["reasoning.encrypted_content"]) as stream:
        shown = stream.get_final_response()
    assert shown.output[0].summary[0].text.startswith("Simulated reasoning") and shown.output[0].encrypted_content
    assert shown.usage.output_tokens_details.reasoning_tokens == 5
    again = client.responses.create(model="echo", input=[*HI, *(item.model_dump(exclude_none=True) for item in shown.output), *HI])
    assert "You said: hello there" in again.output_text


def test_gemini_streams_as_events_and_as_an_array(sim):
    client = gemini(sim)
    streamed = "".join(chunk.text or "" for chunk in client.models.generate_content_stream(model="echo", contents="hello"))
    assert streamed == client.models.generate_content(model="echo", contents="hello").text
    body = json.dumps({"contents": [{"parts": [{"text": "hello"}]}]})
    status, _, data, _ = sim.request("POST", "/v1beta/models/echo:streamGenerateContent", body)
    chunks = json.loads(data)
    assert (status, "".join(chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks)) == (200, streamed)
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize("ask", ["messages", "responses", "gemini"])
def test_a_schema_binds_the_answer_and_an_image_is_seen(sim, ask):
    png = "iVBORw0KGgo="
    if ask == "messages":
        form = {"format": {"type": "json_schema", "schema": CITY}}
        bound = claude(sim).messages.create(model="echo", max_tokens=99, messages=HI, output_config=form).content[0].text
        source = {"type": "base64", "media_type": "image/png", "data": png}
        seen = claude(sim).messages.create(model="echo", max_tokens=99, messages=[{"role": "user", "content": [{"type": "image", "source": source}]}]).content[0].text
    elif ask == "responses":
        form = {"format": {"type": "json_schema", "name": "c", "schema": CITY, "strict": True}}
        bound = gpt(sim).responses.create(model="echo", input="x", text=form).output_text
        part = {"type": "input_image", "image_url": f"data:image/png;base64,{png}", "detail": "auto"}
        seen = gpt(sim).responses.create(model="echo", input=[{"role": "user", "content": [part]}]).output_text
    else:
        config = {"response_mime_type": "application/json", "response_json_schema": CITY}
        client = gemini(sim)
        bound = client.models.generate_content(model="echo", contents="x", config=config).text
        part = types.Part.from_bytes(data=bytes.fromhex("89504e470d0a1a0a"), mime_type="image/png")
        seen = client.models.generate_content(model="echo", contents=[part]).text
    assert json.loads(bound) == {"city": "sim"}
    assert "I see image/png of 8 bytes." in seen


# --- what is refused --------------------------------------------------------------------------------------------------------------------

_USE = {"type": "tool_use", "id": "t1", "name": "f", "input": {}}
_RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "x"}


def _talk(*messages):
    return {"messages": [{"role": role, "content": content} for role, content in messages]}


MESSAGES = [
    ({"max_tokens": None, **_talk(("user", "x"))}, "max_tokens"),
    (_talk(("assistant", "x")), 'first message must use the "user" role'),
    (_talk(("user", "")), "non-empty"),
    (_talk(("user", [{"type": "text", "text": ""}])), "non-empty"),
    (_talk(("user", "x"), ("assistant", "y")), "prefill"),
    (_talk(("user", "x"), ("assistant", [_USE]), ("user", "y")), "without `tool_result` blocks"),
    (_talk(("user", "x"), ("user", [_RESULT])), "unexpected `tool_use_id`"),
    (_talk(("user", "x"), ("assistant", [_USE]), ("user", [{"type": "text", "text": "y"}, _RESULT])), "must come first"),
    (_talk(("user", "x"), ("assistant", [{"type": "thinking", "thinking": "hm", "signature": sign("openai", "hm")}]), ("user", "y")), "Invalid `signature`"),
    ({**_talk(("user", "x")), "tools": [{"name": "f", "input_schema": {}}]}, 'type "object"'),
    ({**_talk(("user", "x")), "tool_choice": {"type": "any"}}, "while providing tools"),
    ({**_talk(("user", "x")), "thinking": {"type": "enabled", "budget_tokens": 2000}}, "greater than `thinking.budget_tokens`"),
    ({**_talk(("user", "x")), "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additionalProperties"),
    ({**_talk(("user", "x")), "seed": 1}, "seed: unknown field"),
    ({**_talk(("user", [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "?"}}]))}, "invalid base64"),
]
RESPONSES = [
    ({"input": [{"role": "assistant", "content": [{"type": "input_text", "text": "x"}]}]}, "Supported values are: output_text"),
    ({"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}]}, "No tool output found"),
    ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "No tool call found"),
    ({"input": [{"type": "reasoning", "id": "rs_1", "summary": []}, *HI]}, "Items are not persisted"),
    ({"input": "x", "tools": [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}}]}, "additionalProperties"),
    ({"input": "x", "tools": [{"type": "function", "function": {"name": "f"}}]}, "unknown field"),
    ({"input": "x", "stop": ["y"]}, "stop: unknown field"),
    ({"input": "x", "text": {"format": {"type": "json_schema", "json_schema": {}}}}, "unknown field"),
]
_CALL = {"functionCall": {"name": "f", "args": {}, "id": "c1"}}
_ANSWER = {"functionResponse": {"name": "f", "id": "c1", "response": {}}}


def _contents(*turns):
    return {"contents": [{"role": role, "parts": parts} for role, parts in turns]}


_ASK = ("user", [{"text": "x"}])
GEMINI = [
    (_contents(("assistant", [{"text": "x"}])), "must be one of user, model"),
    (_contents(("user", [{"text": "x", "inlineData": {"mimeType": "a/b", "data": ""}}])), "one initialized field"),
    (_contents(_ASK, ("model", [_CALL]), _ASK), "number of function response parts"),
    (_contents(_ASK, ("model", [_CALL]), ("user", [{**_ANSWER, "functionResponse": {**_ANSWER["functionResponse"], "id": "c2"}}])), "must match the id"),
    (_contents(_ASK, ("model", [{**_CALL, "thoughtSignature": "Zm9yZWlnbg=="}]), ("user", [_ANSWER])), "signature is not valid"),
    (_contents(_ASK, ("model", [{"text": "x"}])), "last turn"),
    ({**_contents(_ASK), "generationConfig": {"responseJsonSchema": CITY}}, "needs response_mime_type"),
    ({**_contents(_ASK), "generationConfig": {"thinkingConfig": {"thinkingBudget": 1, "thinkingLevel": "LOW"}}}, "only set one of"),
    ({**_contents(_ASK), "tools": [{"functionDeclarations": [{"name": "f", "parameters": {"type": "object", "$ref": "x"}}]}]}, "unknown field"),
    ({**_contents(_ASK), "stream": True}, "stream: unknown field"),
]


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [("/v1/messages", {"model": "echo", "max_tokens": 99, **body}, words) for body, words in MESSAGES]
    + [("/v1/responses", {"model": "echo", **body}, words) for body, words in RESPONSES]
    + [("/v1beta/models/echo:generateContent", body, words) for body, words in GEMINI],
)
def test_what_the_vendor_refuses_is_refused_in_its_shape(sim, path, body, words):
    fields = {key: value for key, value in body.items() if value is not None}
    status, _, data, _ = sim.request("POST", path, json.dumps(fields), VERSION)
    error = json.loads(data)["error"]
    assert status == 400 and words in error["message"], data
    if "messages" in path:
        assert json.loads(data)["type"] == "error" and error["type"] == "invalid_request_error"
    elif "generate" in path:
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    else:
        assert error["type"] == "invalid_request_error"


def test_a_thinking_model_wants_the_signature_of_its_calls_back(sim):
    body = json.dumps(_contents(_ASK, ("model", [_CALL]), ("user", [_ANSWER])))
    status, _, data, _ = sim.request("POST", "/v1beta/models/reasoning-5:generateContent", body)
    assert status == 400 and b"missing a thought_signature" in data
    signed = {**_CALL, "thoughtSignature": "skip_thought_signature_validator"}
    body = json.dumps(_contents(_ASK, ("model", [signed]), ("user", [_ANSWER])))
    assert sim.request("POST", "/v1beta/models/reasoning-5:generateContent", body)[0] == 200


def test_failures_by_status_have_the_vendors_shape(sim):
    body = json.dumps({"max_tokens": 9, "model": "529", **_talk(("user", "x"))})
    status, _, data, _ = sim.request("POST", "/v1/messages", body, VERSION)
    assert (status, json.loads(data)["error"]["type"]) == (529, "overloaded_error")
    status, headers, data, _ = sim.request("POST", "/v1beta/models/429:generateContent", json.dumps(_contents(_ASK)))
    assert (status, headers["retry-after"], json.loads(data)["error"]["status"]) == (429, "1", "RESOURCE_EXHAUSTED")
