"""The official SDKs and LangChain, each doing the same things: what every cell of the matrix of docs/dialects.md runs. No gateway in here.

A client is made with the gateway's address and key, and told which model to ask. `headers` are those of its answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from anthropic import Anthropic, beta_tool
from google import genai
from google.genai import types
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from openai import OpenAI
from pydantic import BaseModel

QUESTION = "hello there"
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
SEEN = f"image/png of {len(PNG)} bytes"
DATA_URL = "data:image/png;base64," + base64.b64encode(PNG).decode()
MAX_TOKENS = 4096


class City(BaseModel):
    name: str
    people: int


def weather(city: str) -> str:
    """What the weather is in a city.

    Args:
        city: its name
    """
    return f"sunny in {city}"


def clock(zone: str) -> str:
    """What time it is.

    Args:
        zone: of the world
    """
    return f"noon in {zone}"


TOOLS: dict[str, Callable[..., str]] = {"weather": weather, "clock": clock}
ANSWERS = ("sunny in sim", "noon in sim")  # what the tools give for the arguments that the simulated model makes up
SCHEMAS: dict[str, Any] = {
    name: {"type": "object", "properties": {key: {"type": "string"}}, "required": [key], "additionalProperties": False}
    for name, key in (("weather", "city"), ("clock", "zone"))
}


class Reasoned(NamedTuple):
    text: str
    tokens: int


class Client(Protocol):
    headers: list[dict[str, str]]

    def text(self, model: str) -> str: ...
    def stream(self, model: str) -> str: ...
    def tools(self, model: str) -> str:
        """The last text of a conversation in which two tools were called at once; by the SDK's own runner where it has one."""

    def schema(self, model: str) -> City: ...
    def image(self, model: str) -> str: ...
    def reasoning(self, model: str) -> Reasoned: ...
    def loop(self, models: list[str]) -> str:
        """One question to each model in turn, all in one conversation, each with two tools called and their results brought."""


def run(name: str, arguments: Any) -> str:
    given = json.loads(arguments) if isinstance(arguments, str) else arguments
    return TOOLS[name](**given)


def check_calls(names: list[str]) -> None:
    assert names == list(TOOLS), names


class OpenAIChatClient:
    def __init__(self, url: str, key: str):
        self.headers: list[dict[str, str]] = []
        self.client = OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
        self.client._client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        self.functions: Any = [{"type": "function", "function": {"name": name, "parameters": SCHEMAS[name], "strict": True}} for name in TOOLS]

    def _ask(self, model: str, messages: Any, **more: Any) -> Any:
        return self.client.chat.completions.create(model=model, messages=messages, **more)

    def text(self, model: str) -> str:
        return self._ask(model, [{"role": "user", "content": QUESTION}]).choices[0].message.content

    def stream(self, model: str) -> str:
        chunks = self._ask(model, [{"role": "user", "content": QUESTION}], stream=True, stream_options={"include_usage": True})
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        with self.client.chat.completions.stream(model=model, messages=[{"role": "user", "content": QUESTION}]) as helper:
            assert helper.get_final_completion().choices[0].message.content == text
        return text

    def tools(self, model: str) -> str:
        with self.client.chat.completions.stream(model=model, messages=[{"role": "user", "content": QUESTION}], tools=self.functions) as helper:
            check_calls([call.function.name for call in helper.get_final_completion().choices[0].message.tool_calls or []])
        return self.loop([model])

    def schema(self, model: str) -> City:
        parsed = self.client.chat.completions.parse(model=model, messages=[{"role": "user", "content": QUESTION}], response_format=City)
        assert parsed.choices[0].message.parsed is not None
        return parsed.choices[0].message.parsed

    def image(self, model: str) -> str:
        parts = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]
        return self._ask(model, [{"role": "user", "content": parts}]).choices[0].message.content

    def reasoning(self, model: str) -> Reasoned:
        reply = self._ask(model, [{"role": "user", "content": QUESTION}], reasoning_effort="high")
        return Reasoned(getattr(reply.choices[0].message, "reasoning_content", None) or "", reply.usage.completion_tokens_details.reasoning_tokens)

    def loop(self, models: list[str]) -> str:
        history: list[Any] = []
        for model in models:
            history.append({"role": "user", "content": QUESTION})
            message = self._ask(model, history, tools=self.functions, reasoning_effort="high").choices[0].message
            check_calls([call.function.name for call in message.tool_calls])
            history.append(message.model_dump(exclude_none=True))
            history += [
                {"role": "tool", "tool_call_id": call.id, "content": run(call.function.name, call.function.arguments)} for call in message.tool_calls
            ]
            message = self._ask(model, history, tools=self.functions, reasoning_effort="high").choices[0].message
            history.append(message.model_dump(exclude_none=True))
        return history[-1]["content"]


class OpenAIResponsesClient:
    def __init__(self, url: str, key: str):
        self.headers: list[dict[str, str]] = []
        self.client = OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)
        self.client._client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        self.functions: Any = [{"type": "function", "name": name, "parameters": SCHEMAS[name], "strict": True} for name in TOOLS]

    def _ask(self, model: str, given: Any, **more: Any) -> Any:
        return self.client.responses.create(model=model, input=given, store=False, **more)

    def text(self, model: str) -> str:
        return self._ask(model, QUESTION).output_text

    def stream(self, model: str) -> str:
        text = "".join(event.delta for event in self._ask(model, QUESTION, stream=True) if event.type == "response.output_text.delta")
        with self.client.responses.stream(model=model, input=QUESTION, store=False) as helper:
            assert helper.get_final_response().output_text == text
        return text

    def tools(self, model: str) -> str:
        with self.client.responses.stream(model=model, input=QUESTION, tools=self.functions, store=False) as helper:
            check_calls([item.name for item in helper.get_final_response().output if item.type == "function_call"])
        return self.loop([model])

    def schema(self, model: str) -> City:
        parsed = self.client.responses.parse(model=model, input=QUESTION, text_format=City, store=False).output_parsed
        assert parsed is not None
        return parsed

    def image(self, model: str) -> str:
        parts = [{"type": "input_text", "text": "what is it?"}, {"type": "input_image", "image_url": DATA_URL, "detail": "auto"}]
        return self._ask(model, [{"role": "user", "content": parts}]).output_text

    def reasoning(self, model: str) -> Reasoned:
        reply = self._ask(model, QUESTION, reasoning={"effort": "high", "summary": "auto"})
        thoughts = [part.text for item in reply.output if item.type == "reasoning" for part in item.summary]
        return Reasoned("".join(thoughts), reply.usage.output_tokens_details.reasoning_tokens)

    def loop(self, models: list[str]) -> str:
        history: list[Any] = []
        more: Any = {"tools": self.functions, "reasoning": {"effort": "high", "summary": "auto"}, "include": ["reasoning.encrypted_content"]}
        reply: Any = None
        for model in models:
            history.append({"role": "user", "content": QUESTION})
            reply = self._ask(model, history, **more)
            calls = [item for item in reply.output if item.type == "function_call"]
            check_calls([call.name for call in calls])
            history += [item.model_dump(exclude_none=True) for item in reply.output]
            history += [{"type": "function_call_output", "call_id": call.call_id, "output": run(call.name, call.arguments)} for call in calls]
            reply = self._ask(model, history, **more)
            history += [item.model_dump(exclude_none=True) for item in reply.output]
        return reply.output_text


class AnthropicClient:
    def __init__(self, url: str, key: str):
        self.headers: list[dict[str, str]] = []
        self.client = Anthropic(base_url=url, api_key=key, max_retries=0)
        self.client._client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        self.functions: Any = [{"name": name, "input_schema": SCHEMAS[name]} for name in TOOLS]

    def _ask(self, model: str, messages: Any, **more: Any) -> Any:
        return self.client.messages.create(model=model, max_tokens=MAX_TOKENS, messages=messages, **more)

    def text(self, model: str) -> str:
        return text_of(self._ask(model, [{"role": "user", "content": QUESTION}]))

    def stream(self, model: str) -> str:
        with self.client.messages.stream(model=model, max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": QUESTION}]) as helper:
            text = "".join(helper.text_stream)
            assert text_of(helper.get_final_message()) == text
        return text

    def tools(self, model: str) -> str:
        functions: Any = [beta_tool(weather), beta_tool(clock)]
        question: Any = [{"role": "user", "content": QUESTION}]
        runner = self.client.beta.messages.tool_runner(model=model, max_tokens=MAX_TOKENS, messages=question, tools=functions)
        said = list(runner)
        check_calls([block.name for block in said[0].content if block.type == "tool_use"])
        return text_of(said[-1])

    def schema(self, model: str) -> City:
        parsed = self.client.messages.parse(model=model, max_tokens=MAX_TOKENS, messages=[{"role": "user", "content": QUESTION}], output_format=City)
        assert parsed.parsed_output is not None
        return parsed.parsed_output

    def image(self, model: str) -> str:
        source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(PNG).decode()}
        return text_of(self._ask(model, [{"role": "user", "content": [{"type": "text", "text": "what is it?"}, {"type": "image", "source": source}]}]))

    def reasoning(self, model: str) -> Reasoned:
        reply = self._ask(model, [{"role": "user", "content": QUESTION}], thinking={"type": "adaptive", "display": "summarized"})
        details = reply.usage.output_tokens_details
        thoughts = [block.thinking for block in reply.content if block.type == "thinking"]
        return Reasoned("".join(thoughts), 0 if details is None else details.thinking_tokens)

    def loop(self, models: list[str]) -> str:
        history: list[Any] = []
        more: Any = {"tools": self.functions, "thinking": {"type": "adaptive", "display": "summarized"}}
        reply: Any = None
        for model in models:
            history.append({"role": "user", "content": QUESTION})
            reply = self._ask(model, history, **more)
            calls = [block for block in reply.content if block.type == "tool_use"]
            check_calls([call.name for call in calls])
            history.append({"role": "assistant", "content": reply.content})
            results = [{"type": "tool_result", "tool_use_id": call.id, "content": run(call.name, call.input)} for call in calls]
            history.append({"role": "user", "content": results})
            reply = self._ask(model, history, **more)
            history.append({"role": "assistant", "content": reply.content})
        return text_of(reply)


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


class GeminiClient:
    def __init__(self, url: str, key: str):
        self.headers: list[dict[str, str]] = []
        self.client = genai.Client(api_key=key, http_options=types.HttpOptions(base_url=url))
        self.client._api_client._httpx_client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        declared: Any = [{"name": name, "parameters_json_schema": SCHEMAS[name]} for name in TOOLS]
        self.functions: Any = [types.Tool(function_declarations=declared)]

    def _ask(self, model: str, contents: Any, **config: Any) -> Any:
        return self.client.models.generate_content(model=model, contents=contents, config=types.GenerateContentConfig(**config))

    def text(self, model: str) -> str:
        return self._ask(model, QUESTION).text

    def stream(self, model: str) -> str:
        return "".join(chunk.text or "" for chunk in self.client.models.generate_content_stream(model=model, contents=QUESTION))

    def tools(self, model: str) -> str:
        reply = self._ask(model, QUESTION, tools=[weather, clock])
        first = reply.automatic_function_calling_history[1]
        check_calls([part.function_call.name for part in first.parts if part.function_call])
        return reply.text

    def schema(self, model: str) -> City:
        return self._ask(model, QUESTION, response_mime_type="application/json", response_schema=City).parsed

    def image(self, model: str) -> str:
        return self._ask(model, ["what is it?", types.Part.from_bytes(data=PNG, mime_type="image/png")]).text

    def reasoning(self, model: str) -> Reasoned:
        reply = self._ask(model, QUESTION, thinking_config=types.ThinkingConfig(include_thoughts=True, thinking_level="HIGH"))  # type: ignore[arg-type]
        thoughts = [part.text for part in reply.candidates[0].content.parts if part.thought]
        return Reasoned("".join(thoughts), reply.usage_metadata.thoughts_token_count or 0)

    def loop(self, models: list[str]) -> str:
        history: list[Any] = []
        off = types.AutomaticFunctionCallingConfig(disable=True)
        more: Any = {"tools": self.functions, "automatic_function_calling": off}
        more["thinking_config"] = types.ThinkingConfig(include_thoughts=True, thinking_level="HIGH")  # type: ignore[arg-type]
        reply: Any = None
        for model in models:
            history.append(types.Content(role="user", parts=[types.Part(text=QUESTION)]))
            reply = self._ask(model, history, **more)
            check_calls([call.name for call in reply.function_calls])
            history.append(reply.candidates[0].content)
            results = [types.FunctionResponse(id=call.id, name=call.name, response={"output": run(call.name, call.args)}) for call in reply.function_calls]
            history.append(types.Content(role="user", parts=[types.Part(function_response=result) for result in results]))
            reply = self._ask(model, history, **more)
            history.append(reply.candidates[0].content)
        return reply.text


class _LangChain:
    """What LangChain does alike with both of its models; `_model` makes one."""

    headers: list[dict[str, str]]
    url: str
    key: str

    def _model(self, model: str, **more: Any) -> Any:
        raise NotImplementedError

    def text(self, model: str) -> str:
        return self._model(model).invoke(QUESTION).text

    def stream(self, model: str) -> str:
        return "".join(chunk.text for chunk in self._model(model).stream(QUESTION))

    def tools(self, model: str) -> str:
        return self.loop([model])

    def schema(self, model: str) -> City:
        return self._model(model).with_structured_output(City, method="json_schema").invoke(QUESTION)

    def image(self, model: str) -> str:
        parts: Any = [{"type": "text", "text": "what is it?"}, {"type": "image_url", "image_url": {"url": DATA_URL}}]
        return self._model(model).invoke([HumanMessage(parts)]).text

    def reasoning(self, model: str) -> Reasoned:
        reply = self._model(model, reasons=True).invoke(QUESTION)
        blocks = reply.content if isinstance(reply.content, list) else []
        thoughts = [block["thinking"] for block in blocks if block.get("type") == "thinking"]
        return Reasoned("".join(thoughts), (reply.usage_metadata.get("output_token_details") or {}).get("reasoning", 0))

    def loop(self, models: list[str]) -> str:
        history: list[Any] = []
        for model in models:
            asked = self._model(model, reasons=True).bind_tools([weather, clock])
            history.append(HumanMessage(QUESTION))
            reply = asked.invoke(history)
            check_calls([call["name"] for call in reply.tool_calls])
            history.append(reply)
            history += [ToolMessage(run(call["name"], call["args"]), tool_call_id=call["id"]) for call in reply.tool_calls]
            history.append(asked.invoke(history))
        return history[-1].text


class LangChainOpenAI(_LangChain):
    def __init__(self, url: str, key: str):
        self.headers, self.url, self.key = [], url, key

    def _model(self, model: str, *, reasons: bool = False, **more: Any) -> Any:
        made: Any = ChatOpenAI(
            model=model, base_url=self.url + "/v1", api_key=self.key, max_retries=0, use_responses_api=False,
            reasoning_effort="high" if reasons else None,
        )  # fmt: skip
        made.root_client._client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        return made


class LangChainAnthropic(_LangChain):
    def __init__(self, url: str, key: str):
        self.headers, self.url, self.key = [], url, key

    def _model(self, model: str, *, reasons: bool = False, **more: Any) -> Any:
        thinking = {"thinking": {"type": "adaptive", "display": "summarized"}} if reasons else {}
        made: Any = ChatAnthropic(model=model, anthropic_api_url=self.url, anthropic_api_key=self.key, max_tokens=MAX_TOKENS, max_retries=0, **thinking)
        made._client._client.event_hooks = {"response": [lambda reply: self.headers.append(dict(reply.headers))]}
        return made


CLIENTS: dict[str, Callable[[str, str], Client]] = {
    "openai chat": OpenAIChatClient,
    "openai Responses": OpenAIResponsesClient,
    "anthropic": AnthropicClient,
    "google-genai": GeminiClient,
    "LangChain ChatOpenAI": LangChainOpenAI,
    "LangChain ChatAnthropic": LangChainAnthropic,
}
