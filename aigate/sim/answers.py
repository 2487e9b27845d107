"""What the simulated model says: a request and a behaviour in, tokens out. The same request gives the same tokens. Pure.

A token is a word with the white space before it (core/words.py), so joining tokens gives the text and counting it gives them back.
Names of tools cost nothing; their arguments are words like any other.
"""

from __future__ import annotations

import base64
import json
import re
from hashlib import blake2b, shake_128

import msgspec

from aigate.core.words import MESSAGE_OVERHEAD, count_words, message_texts
from aigate.sim.behaviours import Behaviour

INTRODUCTION = "This is aigate's built-in simulated model, not a real one."
MAX_ECHOED_TOKENS = 200
MAX_ECHOED_CHARS = 8192
MAX_CHOICES = 128
FILLER = (
    "a able about above across after again all almost along also always among an and any around as at away back be because been "
    "before best better between big both build but by call can change clear close come count day deep done down each early easy end "
    "even every fact fair far few find first for form found free from full gave give go good great had half hand hard has have help "
    "here high hold home how idea if in into is it its just keep kind know large last late lead learn least left less let life light "
    "like line list little live long look made main make many may mean might more most move much must name near need never new next "
    "no not note now of off often old on once one only open or order other our out over own part path place plain plan point put"
).split()
_FILLER_TOKENS = [" " + word for word in FILLER]

_token = re.compile(r"\s*\S+").findall


class ChatRequest(msgspec.Struct):
    """What the simulated model reads of a request, whatever format it came in: OpenAI chat's, to which the others are translated."""

    model: str
    messages: list[dict]
    stream: bool | None = None
    stream_options: dict | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    tools: list[dict] | None = None
    tool_choice: str | dict | None = None
    response_format: dict | None = None
    shows_reasoning: bool = False  # of formats that show it only when asked
    gives_proof: bool = False  # of reasoning, likewise
    is_array: bool = False  # a stream is to come as one JSON array


class ToolCall(msgspec.Struct):
    id: str
    name: str
    fragments: list[str]  # of the arguments, a token each


class Answer(msgspec.Struct):
    """One choice, as tokens in the order they are said."""

    reasoning: list[str]
    content: list[str]
    calls: list[ToolCall]
    finish_reason: str

    @property
    def tokens(self) -> int:
        return len(self.reasoning) + len(self.content) + sum(len(call.fragments) for call in self.calls)


class Answers(msgspec.Struct):
    """All choices of a reply, and what they cost in tokens."""

    choices: list[Answer]
    prompt_tokens: int
    cached_tokens: int
    key: bytes  # of the prompt: equal requests have equal keys

    @property
    def completion_tokens(self) -> int:
        return sum(answer.tokens for answer in self.choices)

    @property
    def reasoning_tokens(self) -> int:
        return sum(len(answer.reasoning) for answer in self.choices)


def answer(request: ChatRequest, behaviour: Behaviour, server_seed: int) -> Answers:
    texts = message_texts(request.messages)
    said = (str(request.seed),) if request.seed is not None else (request.model, *texts)
    key = blake2b("\x1f".join((str(server_seed), *said)).encode(), digest_size=8).digest()
    prompt_tokens = MESSAGE_OVERHEAD * len(request.messages) + sum(map(count_words, texts))
    seed = int.from_bytes(key, "big")
    choices = [_choose(request, behaviour, seed + index) for index in range(request.n or 1)]
    return Answers(choices, prompt_tokens, prompt_tokens // 2 if behaviour.cached else 0, key)


def _choose(request: ChatRequest, behaviour: Behaviour, seed: int) -> Answer:
    reasoning = _reason(behaviour.reasoning, seed)
    calls = _call_tools(request, behaviour, seed)
    content = [] if calls else _say(request, behaviour, seed)
    chosen = Answer(reasoning, content, calls, "tool_calls" if calls else "stop")
    if request.stop and not calls:
        chosen.content = _token(_until("".join(content), request.stop))
    limit = request.max_completion_tokens or request.max_tokens
    if limit is not None and chosen.tokens > limit:
        _shorten(chosen, limit)
    return chosen


def _reason(length: int, seed: int) -> list[str]:
    if not length:
        return []
    tokens = (_token("Simulated reasoning about what was asked:") + _filler(length, ~seed))[:length]
    tokens[-1] += "\n"  # so that the text after it begins a new word, whoever joins the two
    return tokens


def _say(request: ChatRequest, behaviour: Behaviour, seed: int) -> list[str]:
    form = request.response_format or {}
    if form.get("type") == "json_object":
        return _token('{"answer": "sim"}')
    if form.get("type") == "json_schema" and isinstance(form.get("json_schema"), dict):
        return _token(json.dumps(_example(form["json_schema"].get("schema"), 0), ensure_ascii=False))
    asked = _last_text(request.messages)[:MAX_ECHOED_CHARS]
    tokens = _token(INTRODUCTION) + _token(" You said:") + _token(" " + asked)[:MAX_ECHOED_TOKENS] + _see(request.messages)
    length = behaviour.length or len(tokens) + 8
    return (tokens + _filler(length - len(tokens), seed))[:length]


def _last_text(messages: list[dict]) -> str:
    """The last question, or all results of the tools called last."""
    last: list[dict] = []
    for message in reversed(messages):
        role = message.get("role")
        if role == "tool" or (role == "user" and not last):
            last.insert(0, message)
        if role == "user" or (last and role != "tool"):
            break
    return " ".join(message_texts(last))


def _see(messages: list[dict]) -> list[str]:
    """What media came with the last question: their type and size, or their address."""
    last = next((message for message in reversed(messages) if message.get("role") in ("user", "tool")), {})
    content = last.get("content")
    seen = []
    for part in content if isinstance(content, list) else ():
        inside = part.get("image_url") if isinstance(part, dict) else None
        url = inside.get("url") if isinstance(inside, dict) else None
        if isinstance(url, str) and url.startswith("data:"):
            seen.append(f"{url[5:].partition(';')[0]} of {len(base64.b64decode(url.partition(',')[2]))} bytes")
        elif isinstance(url, str):
            seen.append(url)
    return _token(f" I see {', '.join(seen)}.") if seen else []


def _filler(length: int, seed: int) -> list[str]:
    """`length` words drawn by a small congruential generator: quick, and the same everywhere."""
    words, size, state = _FILLER_TOKENS, len(_FILLER_TOKENS), seed & 0xFFFFFFFF
    tokens: list[str] = []
    for _ in range(length):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        tokens.append(words[(state >> 16) % size])
    return tokens


def _until(text: str, stop: str | list[str]) -> str:
    stops = [stop] if isinstance(stop, str) else stop
    ends = [at for at in (text.find(mark) for mark in stops if mark) if at >= 0]
    return text[: min(ends)] if ends else text


def _shorten(chosen: Answer, limit: int) -> None:
    chosen.finish_reason = "length"
    for tokens in (chosen.reasoning, chosen.content, *(call.fragments for call in chosen.calls)):
        del tokens[limit:]
        limit -= len(tokens)


# --- tools --------------------------------------------------------------------------------------------------------------------


def _call_tools(request: ChatRequest, behaviour: Behaviour, seed: int) -> list[ToolCall]:
    is_answered = bool(request.messages) and request.messages[-1].get("role") == "tool"
    if not behaviour.tool_calls or not request.tools or is_answered or request.tool_choice == "none":
        return []
    functions = _functions(request)
    calls = []
    for at in range(behaviour.tool_calls):
        function = functions[at % len(functions)]
        fragments = _token(json.dumps(_example(function.get("parameters"), 0), ensure_ascii=False))
        calls.append(ToolCall(f"call_sim{(seed + at) & 0xFFFFFFFF:08x}", str(function.get("name", "")), fragments))
    return calls


def _functions(request: ChatRequest) -> list[dict]:
    """The function that tool_choice names, else all of them."""
    functions = [tool["function"] for tool in request.tools or () if isinstance(tool.get("function"), dict)]
    forced = request.tool_choice.get("function") if isinstance(request.tool_choice, dict) else None
    if isinstance(forced, dict):
        functions = [function for function in functions if function.get("name") == forced.get("name")] or functions
    return functions or [{}]


_EXAMPLES = {"string": "sim", "integer": 1, "number": 1.5, "boolean": True, "array": [], "null": None}


def _example(schema: object, depth: int) -> object:
    """A value that the usual schemas accept: the first word of an enum, every property of an object."""
    if not isinstance(schema, dict):
        return {}
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return schema["enum"][0]
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    properties = schema.get("properties")
    if kind == "object" and isinstance(properties, dict) and depth < 10:
        return {name: _example(value, depth + 1) for name, value in properties.items()}
    return _EXAMPLES.get(kind, {}) if isinstance(kind, str) else {}


# --- embeddings ---------------------------------------------------------------------------------------------------------------


def embed(text: str, dimensions: int, server_seed: int) -> list[float]:
    """A unit vector that depends on the text alone."""
    digest = shake_128(f"{server_seed}\x1f{text}".encode()).digest(2 * dimensions)
    numbers = [int.from_bytes(digest[at : at + 2], "big") - 32767.5 for at in range(0, len(digest), 2)]
    norm = sum(number * number for number in numbers) ** 0.5
    return [number / norm for number in numbers]
