"""The real `openai` SDK, unmodified, against a real gateway and its simulated provider: what its users read and catch."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from tests.conftest import Gateway, start_gateway

HELLO: Any = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}},
}
PATIENT = "[routing]\nretry_base_ms = 1\nbreaker_failures = 1000\n"  # failures of one test are none of another's


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Two workers, so that nothing holds only where one process knows it."""
    running = start_gateway(tmp_path_factory.mktemp("sdk"), PATIENT, None, "--workers", "2")
    yield running
    running.kill()


Connect = Callable[..., OpenAI]


@pytest.fixture
def connect(served: Gateway) -> Iterator[Connect]:
    """Makes clients of the gateway; their connections are closed at the end."""
    made: list[OpenAI] = []

    def run(**options: Any) -> OpenAI:
        made.append(OpenAI(**{"base_url": served.url + "/v1", "api_key": served.key, "max_retries": 0, **options}))
        return made[-1]

    yield run
    for client in made:
        client.close()


@pytest.fixture
def client(connect: Connect) -> OpenAI:
    return connect()


# --- chat -----------------------------------------------------------------------------------------------------------------


def test_the_quickstart_loop_runs_unguarded_to_its_end(client: OpenAI, capsys: pytest.CaptureFixture[str]) -> None:
    stream = client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True)
    for chunk in stream:
        print(chunk.choices[0].delta.content, end="")
    assert "hello there" in capsys.readouterr().out.replace("None", "")
    assert chunk.usage.cost > 0  # type: ignore[union-attr]
    assert chunk.usage.total_tokens == chunk.usage.prompt_tokens + chunk.usage.completion_tokens  # type: ignore[union-attr]


@pytest.mark.parametrize("asked", [True, False])
def test_usage_comes_as_it_was_asked_for(client: OpenAI, asked: bool) -> None:
    chunks = list(client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True, stream_options={"include_usage": asked}))
    with_usage = [chunk for chunk in chunks if chunk.usage]
    assert with_usage == (chunks[-1:] if asked else [])
    if asked:
        assert chunks[-1].choices == []
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices).count("hello there")


@pytest.mark.parametrize("place", ["first", "every", "finish", "groq", "choices"])
def test_usage_is_one_chunk_and_the_last_wherever_the_provider_puts_it(client: OpenAI, place: str) -> None:
    chunks = list(client.chat.completions.create(model=f"sim/usage-{place}", messages=HELLO, stream=True))
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    plain = client.chat.completions.create(model="sim/echo", messages=HELLO).usage
    assert chunks[-1].usage.completion_tokens == plain.completion_tokens  # type: ignore[union-attr]


def test_a_plain_reply_and_its_stream_are_of_one_price(client: OpenAI) -> None:
    plain = client.chat.completions.create(model="sim/echo", messages=HELLO)
    *_, last = client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True)
    assert plain.usage.to_dict() == last.usage.to_dict()  # type: ignore[union-attr]
    assert (plain.model, last.model) == ("sim/echo", "sim/echo")


def test_tools_are_called_and_their_results_taken(client: OpenAI) -> None:
    asked = client.chat.completions.create(model="sim/tools", messages=HELLO, tools=[WEATHER])
    (call,) = asked.choices[0].message.tool_calls or []
    assert (asked.choices[0].finish_reason, call.function.name) == ("tool_calls", "weather")  # type: ignore[union-attr]
    assert "city" in json.loads(call.function.arguments)  # type: ignore[union-attr]
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
    told = client.chat.completions.create(model="sim/tools", messages=[*HELLO, asked.choices[0].message.to_dict(), result], tools=[WEATHER])
    assert "rain" in (told.choices[0].message.content or "")


def test_the_streaming_helper_folds_tools(client: OpenAI) -> None:
    with client.chat.completions.stream(model="sim/tools-2", messages=HELLO, tools=[WEATHER]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["weather", "weather"]
    assert len({call.id for call in calls}) == 2
    assert {"chunk", "tool_calls.function.arguments.delta", "tool_calls.function.arguments.done"} <= kinds
    assert final.usage is not None and final.usage.total_tokens > 0


def test_reasoning_comes_before_the_answer_and_is_counted(client: OpenAI) -> None:
    plain = client.chat.completions.create(model="sim/reasoning", messages=HELLO, reasoning_effort="low")
    chunks = list(client.chat.completions.create(model="sim/reasoning", messages=HELLO, reasoning_effort="low", stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    thought = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    assert thought == plain.choices[0].message.reasoning_content  # type: ignore[attr-defined]
    assert thought and "".join(delta.content or "" for delta in deltas) == plain.choices[0].message.content
    assert plain.usage.completion_tokens_details.reasoning_tokens > 0  # type: ignore[union-attr]


def test_the_asynchronous_client(served: Gateway) -> None:
    async def run() -> tuple[str, list[str | None]]:
        async with AsyncOpenAI(base_url=served.url + "/v1", api_key=served.key, max_retries=0) as client:
            stream = await client.chat.completions.create(model="sim/echo", messages=HELLO, stream=True)
            text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
            replies = await asyncio.gather(*(client.chat.completions.create(model="sim/echo", messages=HELLO) for _ in range(20)))
            return text, [reply.choices[0].message.content for reply in replies]

    text, others = asyncio.run(run())
    assert set(others) == {text}


def test_embeddings(client: OpenAI) -> None:
    reply = client.embeddings.create(model="sim/embed", input=["one", "two"])
    assert [entry.index for entry in reply.data] == [0, 1]
    assert reply.data[0].embedding != reply.data[1].embedding
    assert reply.usage.prompt_tokens > 0 and reply.model == "sim/embed"
    floats = client.embeddings.create(model="sim/embed", input="one", encoding_format="float")
    assert floats.data[0].embedding == pytest.approx(reply.data[0].embedding, rel=1e-6)  # the SDK asks for base64 by itself


# --- models ---------------------------------------------------------------------------------------------------------------


def test_models_are_listed_and_found_with_a_raw_or_an_encoded_slash(client: OpenAI, served: Gateway) -> None:
    assert "sim/echo" in [model.id for model in client.models.list()]
    found = client.models.retrieve("sim/echo")  # the SDK encodes the slash
    assert (found.id, found.owned_by, found.object) == ("sim/echo", "sim", "model")
    raw, encoded = (served.request("GET", path)[2] for path in ("/v1/models/sim/echo", "/v1/models/sim%2Fecho"))
    assert raw == encoded and raw["id"] == "sim/echo"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody/knows-this")


# --- headers --------------------------------------------------------------------------------------------------------------


def test_the_raw_response_says_who_answered_and_what_it_cost(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim/echo", messages=HELLO, extra_headers={"x-request-id": "mine-1"}
    )
    reply, headers = raw.parse(), raw.headers
    assert (headers["x-aig-provider"], headers["x-aig-served-by"], headers["x-aig-attempts"]) == ("sim", "sim/echo", "1")
    assert headers["x-request-id"].startswith("req_") and reply._request_id == headers["x-request-id"]
    assert headers["x-client-request-id"] == "mine-1"
    assert float(headers["x-cost-cents"]) == pytest.approx(reply.usage.cost * 100)  # type: ignore[union-attr]
    assert "x-aig-warning" not in headers


def test_what_the_provider_saves_by_its_cache_is_told(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model="sim/cached", messages=[{"role": "user", "content": "word " * 100}])
    cached = raw.parse().usage.prompt_tokens_details.cached_tokens  # type: ignore[union-attr]
    assert cached and raw.headers["x-cached-input-units"] == str(cached)


# --- errors ---------------------------------------------------------------------------------------------------------------


def expect(kind: type[openai.APIStatusError], code: str, origin: str, call: Callable[[], object]) -> openai.APIStatusError:
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    error = caught.value
    assert type(error) is kind
    assert error.request_id == error.response.headers["x-request-id"] == error.body["request_id"]  # type: ignore[index,call-overload]
    assert (error.code, error.body["origin"]) == (code, origin)  # type: ignore[index,call-overload]
    assert error.body["status"] == error.status_code  # type: ignore[index,call-overload]
    return error


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "code"),
    [
        ("sim/400", openai.BadRequestError, "invalid_request"),
        ("sim/401", openai.InternalServerError, "provider_unavailable"),  # our credential, so no fault of the caller
        ("sim/404", openai.NotFoundError, "unknown_model"),
        ("sim/422", openai.UnprocessableEntityError, "invalid_request"),
        ("sim/429+retry-after-9", openai.RateLimitError, "rate_limited"),
        ("sim/500", openai.InternalServerError, "provider_unavailable"),
        ("sim/html-502", openai.InternalServerError, "provider_unavailable"),
        ("sim/cut-head", openai.InternalServerError, "provider_unavailable"),
    ],
)
def test_a_providers_failures(client: OpenAI, model: str, kind: type[openai.APIStatusError], code: str, is_stream: bool) -> None:
    error = expect(kind, code, "provider", lambda: client.chat.completions.create(model=model, messages=HELLO, stream=is_stream))
    assert error.body["provider"] == "sim"  # type: ignore[index,call-overload]
    assert kind is not openai.InternalServerError or error.status_code == 502


def test_a_rate_limit_says_when_to_come_back(client: OpenAI) -> None:
    error = expect(
        openai.RateLimitError, "rate_limited", "provider",
        lambda: client.chat.completions.create(model="sim/429+retry-after-9", messages=HELLO),
    )  # fmt: skip
    assert error.response.headers["retry-after"] == "9"
    assert error.response.headers["x-should-retry"] == "true"


def test_a_callers_mistakes(client: OpenAI, connect: Connect) -> None:
    create = client.chat.completions.create
    stranger = connect(api_key="sk-aig-unknown")
    expect(openai.AuthenticationError, "invalid_key", "gateway", lambda: stranger.chat.completions.create(model="sim/echo", messages=HELLO))
    expect(openai.NotFoundError, "unknown_model", "gateway", lambda: create(model="nobody/echo", messages=HELLO))
    error = expect(openai.BadRequestError, "invalid_request", "gateway", lambda: create(model="sim/echo", messages="hello"))  # type: ignore[call-overload]
    assert error.param == "messages" and error.response.headers["x-should-retry"] == "false"


def test_a_stream_that_fails_in_its_midst_raises_after_what_came(client: OpenAI) -> None:
    texts = []
    with pytest.raises(openai.APIError) as caught:
        for chunk in client.chat.completions.create(model="sim/error-midstream-3", messages=HELLO, stream=True):
            texts.append(chunk.choices[0].delta.content or "")
    assert "".join(texts)
    assert caught.value.body["origin"] == "provider"  # type: ignore[index,call-overload]


def test_the_sdks_own_retries_reach_an_answer(connect: Connect) -> None:
    """More failures in a row than the gateway retries by itself."""
    patient = connect(max_retries=3)
    reply = patient.chat.completions.create(model="sim/503-then-ok-4+retry-after-0", messages=[{"role": "user", "content": "patience"}])
    assert "patience" in (reply.choices[0].message.content or "")


# --- routing --------------------------------------------------------------------------------------------------------------


def test_an_array_of_models_is_tried_in_order(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(model=["sim/500", "sim/echo"], messages=HELLO)  # type: ignore[call-overload]
    assert raw.headers["x-aig-served-by"] == "sim/echo"
    assert int(raw.headers["x-aig-attempts"]) >= 2
    assert raw.parse().model == "sim/500"  # the one asked for


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_named_fallback_answers_and_can_be_switched_off(client: OpenAI, is_stream: bool) -> None:
    create = client.chat.completions.with_raw_response.create
    raw = create(model="sim/502", messages=HELLO, stream=is_stream, extra_body={"fallbacks": ["sim/echo"]})
    assert raw.headers["x-aig-served-by"] == "sim/echo"
    with pytest.raises(openai.InternalServerError) as caught:
        create(model="sim/502", messages=HELLO, stream=is_stream, extra_body={"fallbacks": False})
    assert caught.value.response.headers["x-aig-served-by"] == "sim/502"


def test_a_failure_that_passes_is_retried_unseen(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="sim/500-then-ok-1", messages=[{"role": "user", "content": "once more"}]
    )
    assert (raw.headers["x-aig-attempts"], raw.headers["x-aig-served-by"]) == ("2", "sim/500-then-ok-1")


# --- keys, tags, usage ----------------------------------------------------------------------------------------------------


def make_key(served: Gateway, **fields: Any) -> dict[str, Any]:
    status, _, key = served.request("POST", "/v1/keys", {"name": "of a test", **fields})
    assert status == 201
    return key


def test_a_key_counts_on_every_worker_from_its_first_moment_to_its_last(served: Gateway, connect: Connect) -> None:
    def statuses() -> set[int]:  # a connection a call, so that both workers are met
        return {served.request("POST", "/v1/chat/completions", {"model": "sim/echo", "messages": HELLO}, key["key"])[0] for _ in range(12)}

    for _ in range(5):
        key = make_key(served)
        assert statuses() == {200}
        assert served.request("DELETE", f"/v1/keys/{key['id']}")[0] == 200
        assert statuses() == {401}
    with pytest.raises(openai.AuthenticationError):
        connect(api_key=key["key"]).chat.completions.create(model="sim/echo", messages=HELLO)


def test_a_key_of_few_models_is_refused_the_others(served: Gateway, connect: Connect) -> None:
    scoped = connect(api_key=make_key(served, allowed_models=["sim/ec*"])["key"])
    assert scoped.chat.completions.create(model="sim/echo", messages=HELLO).choices
    call = lambda: scoped.chat.completions.create(model="sim/tools", messages=HELLO)  # noqa: E731
    expect(openai.PermissionDeniedError, "scope_exceeded", "gateway", call)


def test_a_tag_gathers_what_its_calls_cost(served: Gateway, connect: Connect) -> None:
    tagged = connect(default_headers={"x-aig-tag": "a feature"})
    costs = [tagged.chat.completions.create(model="sim/echo", messages=HELLO).usage.cost for _ in range(3)]  # type: ignore[union-attr]
    *_, last = tagged.chat.completions.create(model="sim/echo", messages=HELLO, stream=True)
    costs.append(last.usage.cost)  # type: ignore[union-attr]
    (entry,) = [entry for entry in served.request("GET", "/v1/usage/by-tag")[2]["data"] if entry["tag"] == "a feature"]
    assert (entry["label"], entry["requests"], entry["attempts"]) == ("a feature", 4, 4)
    assert entry["cost_cents"] == pytest.approx(sum(costs) * 100)
    with pytest.raises(openai.BadRequestError, match="64"):
        connect(default_headers={"x-aig-tag": "x" * 65}).chat.completions.create(model="sim/echo", messages=HELLO)


def test_recent_calls_page_from_the_newest_to_the_oldest(served: Gateway, connect: Connect) -> None:
    key = make_key(served)["key"]
    own = connect(api_key=key)
    made = [own.chat.completions.create(model="sim/echo", messages=HELLO)._request_id for _ in range(7)]
    with pytest.raises(openai.InternalServerError):
        own.chat.completions.create(model="sim/500", messages=HELLO, extra_body={"fallbacks": False})
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        _, _, page = served.request("GET", f"/v1/usage/recent?limit=3{cursor and '&cursor=' + cursor}", key=key)
        seen += page["data"]
        cursor = page["next_cursor"]
    failed, *answered = seen
    assert (failed["status"], failed["error_code"], failed["cost_cents"]) == (502, "provider_unavailable", 0)
    assert failed["attempts"] >= 1
    assert sorted(call["request_id"] for call in answered) == sorted(made)  # type: ignore[type-var]
    assert [call["created_at"] for call in seen] == sorted((call["created_at"] for call in seen), reverse=True)
    assert all(call["model"] == "sim/echo" and call["cost_cents"] > 0 for call in answered)


# --- parameters that a provider does not take -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def picky(served: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose upstream is the other gateway, under the name of a provider that refuses parameters."""
    config = f'[providers.groq]\nbase_url = "{served.url}/v1"\napi_key = "{served.key}"\nunpriced = "allow"\n'
    running = start_gateway(tmp_path_factory.mktemp("picky"), config)
    yield running
    running.kill()


def test_dropped_parameters_are_named_or_refused_when_strict(picky: Gateway, connect: Connect) -> None:
    create = connect(base_url=picky.url + "/v1", api_key=picky.key).chat.completions.with_raw_response.create
    given: dict[str, Any] = {"model": "groq/sim/echo", "messages": HELLO, "logit_bias": {"1": 2}, "top_logprobs": 2, "n": 3}
    raw = create(**given)
    choices = raw.parse().choices
    assert [choice.index for choice in choices] == [0, 1, 2]  # it makes one at a time: an attempt each
    assert all("hello there" in (choice.message.content or "") for choice in choices)
    warning = raw.headers["x-aig-warning"]
    assert all(f'param="{name}"' in warning for name in ("logit_bias", "top_logprobs"))
    with pytest.raises(openai.BadRequestError) as caught:
        create(**given, extra_headers={"x-aig-strict": "true"})
    assert all(name in caught.value.message for name in ("logit_bias", "top_logprobs"))
    assert create(model="groq/sim/echo", messages=HELLO, extra_headers={"x-aig-strict": "true"}).http_response.status_code == 200


def test_a_gateway_behind_a_gateway_streams_too(picky: Gateway, connect: Connect) -> None:
    create = connect(base_url=picky.url + "/v1", api_key=picky.key).chat.completions.create
    chunks = list(create(model="groq/sim/reasoning", messages=HELLO, stream=True))
    assert "hello there" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert {chunk.model for chunk in chunks} == {"groq/sim/reasoning"}


# --- the gateway's own SDK --------------------------------------------------------------------------------------------------


def test_the_aigateway_sdk(served: Gateway) -> None:
    aigateway = pytest.importorskip("aigateway", reason="aigateway-py is not installed")
    with aigateway.AIgateway(served.key, base_url=served.url, tag="from the sdk") as client:
        assert "sim/echo" in [model["id"] for model in client.models.list(provider="sim", modality="text")]
        assert client.models.list(provider="nobody") == []
        assert client.models.get("sim/echo")["id"] == "sim/echo"
        reply = client._request("POST", "/v1/chat/completions", json={"model": "sim/echo", "messages": HELLO})
        assert "hello there" in reply["choices"][0]["message"]["content"]
        with pytest.raises(aigateway.AIgatewayError) as caught:
            client.models.get("nobody/knows-this")
        assert (caught.value.status_code, caught.value.type) == (404, "model_not_found")
        assert "from the sdk" in [entry["tag"] for entry in client._request("GET", "/v1/usage/by-tag")["data"]]
        assert client._request("GET", "/v1/usage/recent", params={"limit": 1})["data"][0]["created_at"].replace("T", " ")
