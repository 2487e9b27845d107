"""Bad input and bad replies, from outside, on every surface: refused in the surface's own shape with the field's path before a provider is
called; a reply that breaks its grammar is a provider's error, told in the stream, with what was used until then in the ledger."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.four_formats import PROVIDERS, Served, serve_four_formats

HUGE = "1e999"  # in a body: the number, which JSON allows and no double holds
HI: Any = [{"role": "user", "content": "hi"}]
ASKED: Any = [{"parts": [{"text": "hi"}]}]
# surface, fields of the body, the path of the wrong one. Each crosses into another format.
BAD: list[tuple[str, dict[str, Any], str]] = [
    ("openai-chat", {"messages": [{"role": "robot", "content": "hi"}]}, "messages[0].role"),
    ("openai-chat", {"messages": [*HI, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": 5}}]}]}, "messages[1].content.url"),
    ("openai-chat", {"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
    ("openai-chat", {"messages": HI, "temperature": "hot"}, "temperature"),
    ("openai-chat", {"messages": HI, "tools": [{"type": "function"}]}, "tools[0].function"),
    ("openai-responses", {"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
    ("openai-responses", {"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    ("openai-responses", {"input": "hi", "text": {"format": {"type": "json_schema", "name": "x", "schema": 5}}}, "text.format"),
    ("openai-responses", {"input": "hi", "tools": [{"type": "function"}]}, "tools[0].name"),
    ("anthropic-messages", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "messages[0].content[0].tool_use_id"),
    ("anthropic-messages", {"messages": HI, "stop_sequences": 5}, "stop_sequences"),
    ("anthropic-messages", {"messages": HI, "tools": [{}]}, "tools[0].name"),
    ("gemini", {"contents": [{"parts": [{"inlineData": {"mimeType": "image/png"}}]}]}, "contents[0].parts[0].inlineData.data"),
    ("gemini", {"contents": ASKED, "tools": [{"functionDeclarations": [{}]}]}, "tools[0].functionDeclarations[0].name"),
    ("gemini", {"contents": ASKED, "generationConfig": {"temperature": "hot"}}, "generationConfig.temperature"),
]


# (surface, field of the body, param) of what bounds the money that is held: no number in it may be the gateway's problem
ENDLESS = [
    ("openai-chat", {"messages": HI, "max_tokens": 10**17}, "max_tokens"),
    ("openai-chat", {"messages": HI, "max_completion_tokens": 10**30}, "max_completion_tokens"),
    ("openai-responses", {"input": "hi", "max_output_tokens": 10**17}, "max_output_tokens"),
    ("anthropic-messages", {"messages": HI, "max_tokens": 10**17}, "max_tokens"),
    ("gemini", {"contents": ASKED, "generationConfig": {"maxOutputTokens": 10**17}}, "maxOutputTokens"),
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve_four_formats(tmp_path_factory.mktemp("bad")) as running:
        yield running


def post(served: Served, surface: str, model: str, body: dict[str, Any], *, is_stream: bool = False) -> tuple[int, str, str]:
    """(status, the body as text, the call's id) of a call by plain HTTP."""
    action = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    paths = {"openai-chat": "/v1/chat/completions", "openai-responses": "/v1/responses", "anthropic-messages": "/v1/messages"}
    fields = body if surface == "gemini" else {"model": model, "stream": is_stream, **({"max_tokens": 64} if "anthropic" in surface else {}), **body}
    headers = {"authorization": f"Bearer {served.gateway.key}", "content-type": "application/json"}
    connection = http.client.HTTPConnection(served.gateway.url.removeprefix("http://"), timeout=30)
    connection.request("POST", paths.get(surface, f"/v1beta/models/{model}:{action}"), json.dumps(fields).replace(json.dumps(HUGE), HUGE), headers)
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text, reply.headers["x-request-id"]


@pytest.mark.parametrize(("surface", "body", "path"), BAD, ids=[f"{surface}-{path}" for surface, _, path in BAD])
def test_a_wrong_field_is_named_before_a_provider_is_called(served: Served, surface: str, body: dict[str, Any], path: str) -> None:
    before = served.provider_saw()
    other = "anthropic" if surface.startswith("openai") else "openai"
    status, text, _ = post(served, surface, f"{other}/echo", body)
    assert (status, served.provider_saw()) == (400, before), text
    error = json.loads(text)["error"]
    assert path in error["message"], error
    if surface == "gemini":
        assert (error["code"], error["status"]) == (400, "INVALID_ARGUMENT")
    else:
        assert (error["type"], error["param"]) == ("invalid_request_error", path)
        assert ("request_id" in json.loads(text)) == (surface == "anthropic-messages")


@pytest.mark.parametrize(
    ("surface", "body"),
    [
        ("openai-chat", {"messages": HI, "tools": HUGE}),
        ("openai-chat", {"messages": HI, "response_format": HUGE}),
        ("openai-responses", {"input": "hi", "text": HUGE}),
        ("anthropic-messages", {"messages": HI, "tools": [HUGE]}),
        ("gemini", {"contents": ASKED, "generationConfig": {"responseSchema": HUGE}}),
    ],
)
def test_a_number_that_no_double_holds_is_the_callers_mistake(served: Served, surface: str, body: dict[str, Any]) -> None:
    before = served.provider_saw()
    status, text, _ = post(served, surface, "anthropic/echo" if surface.startswith("openai") else "openai/echo", body)
    assert (status, served.provider_saw()) == (400, before), text


ASKS: dict[str, dict[str, Any]] = {
    "openai-chat": {"messages": HI}, "openai-responses": {"input": "hi"}, "anthropic-messages": {"messages": HI}, "gemini": {"contents": ASKED},
}  # fmt: skip


@pytest.mark.parametrize(("surface", "body", "param"), ENDLESS, ids=[f"{surface}-{param}" for surface, _, param in ENDLESS])
def test_a_number_of_tokens_that_no_model_makes_is_a_400(served: Served, surface: str, body: dict[str, Any], param: str) -> None:
    status, text, _ = post(served, surface, "sim/echo", body)
    assert status == 400 and param in text and "a whole number from" in text
    body = json.loads(json.dumps(body).replace(str(10**30), str(2**31 - 1)).replace(str(10**17), str(2**31 - 1)))
    status, text, _ = post(served, surface, "sim/echo", body)
    assert status == 200, text


@pytest.mark.parametrize("form", PROVIDERS)
@pytest.mark.parametrize("surface", ASKS)
def test_a_plain_reply_that_is_no_reply_is_the_providers_error(served: Served, surface: str, form: str) -> None:
    status, text, _ = post(served, surface, f"{PROVIDERS[form]}/garbage", ASKS[surface])
    assert status == 502, text
    assert "provider" in json.loads(text)["error"]["message"]


@pytest.mark.parametrize("fault", ["cut-5", "error-midstream-5"])
@pytest.mark.parametrize("form", PROVIDERS)
@pytest.mark.parametrize("surface", ASKS)
def test_a_stream_that_breaks_is_told_and_what_was_used_is_settled(served: Served, surface: str, form: str, fault: str) -> None:
    status, text, call_id = post(served, surface, f"{PROVIDERS[form]}/{fault}+long-40", ASKS[surface], is_stream=True)
    assert status == 200, text
    assert "built-in" in text  # what came before it broke
    last = [line[6:] for line in text.replace("\r", "").split("\n") if line.startswith("data: {")][-1]
    told = json.loads(last)
    assert told.get("error") or told["response"]["error"], last
    row = served.attempt(call_id)
    assert (row["end"], row["output_tokens"] > 0) == ("failed", True), row
