"""The table of docs/dialects.md: what becomes of each feature from each client's format to each provider's, as the code itself says.

A feature is a request of the client's own format; it crosses as an attempt makes it, and what is warned of is read off. Pure.
"""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aigate.core.edits import apply_to_request, plan_request
from aigate.core.target import Model, Provider, Target
from aigate.dialects import DIALECTS
from aigate.dialects.fetchable import media_to_fetch
from aigate.dialects.lost import lost_fields
from aigate.providers.table import ROWS
from tools import losses

DOCS_PAGE = Path(__file__).parents[1] / "docs" / "dialects.md"
FORMATS = ("openai-chat", "openai-responses", "anthropic-messages", "gemini")
_MODELS = {
    "openai-chat": ("openai", "gpt-4.1"), "openai-responses": ("openai", "gpt-5.2"), "anthropic-messages": ("anthropic", "claude-opus-4.6"),
    "gemini": ("google", "gemini-3.5-flash"),
}  # fmt: skip
_TOOL = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
_PNG, _URL, _PDF = "iVBORw0KGgo=", "https://example.com/a.png", "https://example.com/a.pdf"


def _chat(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts) or "hi"}], **more}


def _messages(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"max_tokens": 9, "messages": [{"role": "user", "content": list(parts) or "hi"}], **more}


def _responses(*parts: Any, **more: Any) -> dict[str, Any]:
    return {"input": [{"role": "user", "content": list(parts) or "hi"}], "store": False, **more}


def _gemini(*parts: Any, config: Any = None, **more: Any) -> dict[str, Any]:
    return {"contents": [{"role": "user", "parts": list(parts) or [{"text": "hi"}]}], **({"generationConfig": config} if config else {}), **more}


FEATURES: dict[str, dict[str, dict[str, Any]]] = {
    "text": {"openai-chat": _chat(), "openai-responses": _responses(), "anthropic-messages": _messages(), "gemini": _gemini()},
    "tools": {
        "openai-chat": _chat(tools=[{"type": "function", "function": _TOOL}]),
        "openai-responses": _responses(tools=[{"type": "function", **_TOOL}]),
        "anthropic-messages": _messages(tools=[{"name": "f", "input_schema": _TOOL["parameters"]}]),
        "gemini": _gemini(tools=[{"functionDeclarations": [_TOOL]}]),
    },
    "web search of the provider": {
        "openai-responses": _responses(tools=[{"type": "web_search"}]),
        "anthropic-messages": _messages(tools=[{"type": "web_search_20250305", "name": "web_search"}]),
        "gemini": _gemini(tools=[{"googleSearch": {}}]),
    },
    "JSON schema": {
        "openai-chat": _chat(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": _SCHEMA}}),
        "openai-responses": _responses(text={"format": {"type": "json_schema", "name": "a", "schema": _SCHEMA}}),
        "anthropic-messages": _messages(output_config={"format": {"type": "json_schema", "schema": _SCHEMA}}),
        "gemini": _gemini(config={"responseMimeType": "application/json", "responseJsonSchema": _SCHEMA}),
    },
    "JSON without a schema": {
        "openai-chat": _chat(response_format={"type": "json_object"}),
        "openai-responses": _responses(text={"format": {"type": "json_object"}}),
        "gemini": _gemini(config={"responseMimeType": "application/json"}),
    },
    "image as data": {
        "openai-chat": _chat({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{_PNG}"}}),
        "openai-responses": _responses({"type": "input_image", "image_url": f"data:image/png;base64,{_PNG}", "detail": "auto"}),
        "anthropic-messages": _messages({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _PNG}}),
        "gemini": _gemini({"inlineData": {"mimeType": "image/png", "data": _PNG}}),
    },
    "image by URL": {
        "openai-chat": _chat({"type": "image_url", "image_url": {"url": _URL}}),
        "openai-responses": _responses({"type": "input_image", "image_url": _URL, "detail": "auto"}),
        "anthropic-messages": _messages({"type": "image", "source": {"type": "url", "url": _URL}}),
        "gemini": _gemini({"fileData": {"mimeType": "image/png", "fileUri": _URL}}),
    },
    "PDF by URL": {
        "openai-responses": _responses({"type": "input_file", "file_url": _PDF}),
        "anthropic-messages": _messages({"type": "document", "source": {"type": "url", "url": _PDF}}),
        "gemini": _gemini({"fileData": {"mimeType": "application/pdf", "fileUri": _PDF}}),
    },
    "file by id": {
        "openai-chat": _chat({"type": "file", "file": {"file_id": "file-1"}}),
        "openai-responses": _responses({"type": "input_file", "file_id": "file-1"}),
        "anthropic-messages": _messages({"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
    },
    "stop sequences": {
        "openai-chat": _chat(stop=["x"]), "anthropic-messages": _messages(stop_sequences=["x"]), "gemini": _gemini(config={"stopSequences": ["x"]}),
    },
    "seed": {"openai-chat": _chat(seed=1), "gemini": _gemini(config={"seed": 1})},
    "log-probabilities": {"openai-chat": _chat(logprobs=True), "gemini": _gemini(config={"responseLogprobs": True})},
    "logit bias": {"openai-chat": _chat(logit_bias={"1": 2})},
    "cached content of the provider": {"gemini": _gemini(cachedContent="cachedContents/1")},
}  # fmt: skip


def _target(dialect: str) -> Target:
    name, model = _MODELS[dialect]
    quirks = next(quirks for glob, quirks in ROWS[name].quirks if fnmatchcase(model, glob))
    provider = Provider(name=name, base_url="https://provider.example")
    return Target(f"{name}/{model}", provider, model, Model(slug=f"{name}/{model}", is_reasoning=False), quirks, dialect, "/", "chat")


def outcome(client: str, provider: str, body: dict[str, Any]) -> str:
    """kept, fetched, or what the warnings say."""
    surface, target = DIALECTS[client], _target(provider)
    head = SimpleNamespace(path="/v1beta/models/m:generateContent", query="", headers={})
    data = json.dumps(body if client == "gemini" else {"model": "m", **body}).encode()
    call = surface.read_call(data, "responses" if client == "openai-responses" else "chat", head)
    request = surface.read_request(call)
    wanted = media_to_fetch(request, target)
    for _, media in wanted:
        media.url, media.data, media.media_type = None, _PNG, "application/pdf"
    plan = plan_request(call, request, target, surface.params)
    apply_to_request(request, plan.edits)
    warnings = [*plan.warnings, *lost_fields(request, provider), *DIALECTS[provider].lost(request, target)]
    kinds = sorted({warning.kind for warning in warnings})
    return ", ".join(kinds) or ("fetched" if wanted else "kept")


PAGE = """# What crosses between formats

Made by `make docs` from the code's own tables (`tools/crossings.py`). A client may speak any of these formats and name a model of any provider;
where both speak the same one, nothing is rewritten that need not be.

- **kept**: says the same there. **fetched**: the gateway reads the URL and sends data (`upstream.fetch_urls`; public addresses only).
- **emulated**, **moved**, **clamped**, **dropped**: as far as it can be said. Each is named in `x-aig-warning` with the field's path; with
  `x-aig-strict: true` the call is refused instead, before anything is sent.
- Several choices (`n`) of a provider that makes one at a time are made by as many attempts at once, in one reply or one stream.
- Reasoning is good only for the vendor that made it: a conversation that changes vendor leaves it behind, with a warning.
- A model may depart from its provider's format; what is below is for one model of each: MODELS.

"""


HOW_IT_IS_PROVED = """## What real clients do

Every cell is a run of `tests/e2e/test_matrix.py`: the SDK unmodified, a real gateway, and behind it the simulated provider, which reads the
provider's format as strictly as its vendor documents it. **kept** says that it came out the same and nothing was warned of; else what
`x-aig-warning` named. *Change of vendor* is one conversation with tools and thinking that goes from this provider to each other one and back.
To try it by hand, start `aigate sim --port 9100` and give it a name for each format:

```toml
[providers.claude-sim]
dialect = "anthropic-messages"       # or openai-chat, openai-responses
base_url = "http://127.0.0.1:9100/v1"
unpriced = "allow"
[providers.gemini-sim]
dialect = "gemini"
base_url = "http://127.0.0.1:9100/v1beta"
unpriced = "allow"
```

Then `claude-sim/tools-2+reasoning` and the like (`aigate call`, or any SDK) cross into these formats. What the simulated provider refuses, it
refuses with the vendor's own words.

"""


def page() -> str:
    begin, end = "<!-- matrix -->\n", "<!-- end of matrix -->\n"
    known = DOCS_PAGE.read_text() if DOCS_PAGE.exists() else ""
    matrix = known.partition(begin)[2].partition(end)[0]  # made by the tests: only they know
    told = PAGE.replace("MODELS", ", ".join("/".join(model) for model in _MODELS.values())) + table()
    lost = "\n## What cannot be kept\n\nEach with the page that shows no place for it. Anything else that is lost without a warning is a bug.\n\n" + losses.page()
    return told + lost + "\n" + HOW_IT_IS_PROVED + begin + matrix + end


def table() -> str:
    lines = []
    for client in FORMATS:
        others = [provider for provider in FORMATS if provider != client]
        lines += [f"### From `{client}`\n", f"| feature | {' | '.join(f'`{other}`' for other in others)} |", "|---" * (len(others) + 1) + "|"]
        lines += [
            f"| {feature} | {' | '.join(outcome(client, other, bodies[client]) for other in others)} |"
            for feature, bodies in FEATURES.items()
            if client in bodies
        ]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
