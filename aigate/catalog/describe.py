"""How to call one model, for people: the `schema` block of GET /v1/models/{id} and the capability vocabulary. Pure text-making."""

from __future__ import annotations

import msgspec

from aigate.core.job import JobLimits
from aigate.core.params import MAX_OUTPUT_TOKENS
from aigate.core.target import Model, Provider, Quirks

# id → (what it means, where it is used)
CAPABILITIES: dict[str, tuple[str, str]] = {
    "streaming": ("Answers piece by piece (stream: true), with usage and cost on the last piece", "/v1/chat/completions"),
    "tools": ("Calls functions given in `tools`", "/v1/chat/completions"),
    "json": ("Keeps to JSON, or to a JSON schema, asked for in `response_format`", "/v1/chat/completions"),
    "vision": ("Reads images among the parts of a message", "/v1/chat/completions"),
    "audio": ("Hears audio among the parts of a message", "/v1/chat/completions"),
    "reasoning": ("Thinks before it answers; `reasoning_effort` says how much", "/v1/chat/completions"),
    "caching": ("Charges less for a prompt whose beginning it has seen lately", "/v1/chat/completions"),
    "embeddings": ("Turns texts into vectors", "/v1/embeddings"),
    "batch": ("Can be run in batches", "/v1/batches"),
    "async": ("Runs as a job that is asked for later", "/v1/jobs"),
    "image-to-image": ("Makes an image from an image", "/v1/images/edits"),
}

JOB_PATHS = {"video": "/v1/videos/generations", "music": "/v1/audio/music", "3d": "/v1/3d/generations"}  # modality → where it is asked for

_USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12, "cost": 0.0000042}


def describe_model(model: Model, provider: Provider, quirks: Quirks, base_url: str) -> dict[str, object]:
    """`base_url`: of this gateway, for the snippets."""
    if model.modality == "embedding":
        schema = _embeddings(model, base_url)
    elif model.modality in JOB_PATHS:
        schema = _job(model, base_url)
    else:
        schema = _chat(model, base_url, shows_reasoning=model.is_reasoning and quirks.reasoning_field != "none")
    return {
        "provider": provider.name,
        "provider_doc": provider.doc,
        "is_reasoning": model.is_reasoning,
        "fallbacks": list(model.fallbacks),
        "schema": {**schema, "quirks": list_quirks(model, quirks)},
    }


def _chat(model: Model, base_url: str, *, shows_reasoning: bool) -> dict[str, object]:
    request = {"model": model.slug, "messages": [{"role": "user", "content": "Say hello."}]}
    message = {"role": "assistant", "content": "Hello!"}
    if shows_reasoning:
        message["reasoning_content"] = "A greeting is asked for."
    head = {"id": "chatcmpl-1", "created": 1767225600, "model": model.slug}
    reply = {**head, "object": "chat.completion", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": _USAGE}
    deltas = [({**message}, None), ({}, "stop")]
    chunks = [
        {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}
        for delta, reason in deltas
    ]
    last = {**head, "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": _USAGE}
    return {
        "endpoint": "POST /v1/chat/completions",
        "request": request,
        "response": reply,
        "stream": [*chunks, last, "[DONE]"],
        "snippets": _snippets(
            base_url,
            "chat/completions",
            body=f'{{"model": "{model.slug}", "messages": [{{"role": "user", "content": "Say hello."}}]}}',
            python=f'reply = client.chat.completions.create(model="{model.slug}", messages=[{{"role": "user", "content": "Say hello."}}])\n'
            "print(reply.choices[0].message.content)",
            typescript=f'const reply = await client.chat.completions.create({{ model: "{model.slug}", '
            'messages: [{ role: "user", content: "Say hello." }] });\nconsole.log(reply.choices[0].message.content);',
        ),
    }


def _embeddings(model: Model, base_url: str) -> dict[str, object]:
    usage = {"prompt_tokens": 2, "total_tokens": 2, "cost": 0.0000001}
    data = [{"object": "embedding", "index": 0, "embedding": [0.0123, -0.0456]}]
    return {
        "endpoint": "POST /v1/embeddings",
        "request": {"model": model.slug, "input": ["Hello!"]},
        "response": {"object": "list", "model": model.slug, "data": data, "usage": usage},
        "stream": None,
        "snippets": _snippets(
            base_url,
            "embeddings",
            body=f'{{"model": "{model.slug}", "input": ["Hello!"]}}',
            python=f'reply = client.embeddings.create(model="{model.slug}", input=["Hello!"])\nprint(reply.data[0].embedding)',
            typescript=f'const reply = await client.embeddings.create({{ model: "{model.slug}", input: ["Hello!"] }});\n'
            "console.log(reply.data[0].embedding);",
        ),
    }


def _job(model: Model, base_url: str) -> dict[str, object]:
    """A media job: submitted, then asked for. The official SDK knows both; the snippets need nothing but HTTP."""
    path = JOB_PATHS[model.modality]
    limits = model.job or JobLimits()
    said = {name: value for name, value in limits.defaults.items() if name in ("duration", "aspect_ratio", "resolution")}
    picture = {"image_url": "https://example.com/picture.png"} if "image_url" in limits.needs else {}
    request = {"model": model.slug, "prompt": "A paper boat on a quiet lake.", **said, **picture}
    record = {"id": "job_1", "object": "job", "status": "queued", "modality": model.modality, "model": model.slug}
    body = msgspec.json.encode(request).decode()
    headers = '{"Authorization": "Bearer " + os.environ["AIG_KEY"], "Content-Type": "application/json"}'
    return {
        "endpoint": f"POST {path}",
        "request": request,
        "response": record,
        "stream": None,
        "takes": sorted({"prompt", *limits.takes}),
        "snippets": {
            "curl": f"curl {base_url}{path.removeprefix('/v1')} \\\n  -H \"Authorization: Bearer $AIG_KEY\" \\\n"
            f"  -H 'Content-Type: application/json' \\\n  -d '{body}'",
            "python": "import json, os, urllib.request\n\n"
            f"request = urllib.request.Request({base_url + path.removeprefix('/v1')!r}, {body!r}.encode(), {headers})\n"
            'job = json.load(urllib.request.urlopen(request))\nprint(job["id"], job["status"])',
            "typescript": f'const reply = await fetch("{base_url}{path.removeprefix("/v1")}", {{ method: "POST", body: JSON.stringify({body}), '
            'headers: { Authorization: `Bearer ${process.env.AIG_KEY}`, "Content-Type": "application/json" } });\n'
            "console.log(await reply.json());",
        },
    }


def _snippets(base_url: str, path: str, *, body: str, python: str, typescript: str) -> dict[str, str]:
    return {
        "curl": f'curl {base_url}/{path} \\\n  -H "Authorization: Bearer $AIG_KEY" \\\n'
        f"  -H 'Content-Type: application/json' \\\n  -d '{body}'",
        "python": f'import os\nfrom openai import OpenAI\n\nclient = OpenAI(base_url="{base_url}", api_key=os.environ["AIG_KEY"])\n{python}',
        "typescript": f'import OpenAI from "openai";\n\nconst client = new OpenAI({{ baseURL: "{base_url}", '
        f"apiKey: process.env.AIG_KEY }});\n{typescript}",
    }


def list_quirks(model: Model, quirks: Quirks) -> list[str]:
    """What a caller may want to know of how this model takes parameters."""
    lines = []
    spelling = quirks.spelling.get(MAX_OUTPUT_TOKENS)
    if spelling:
        lines.append(f"takes {spelling}: the other spelling is renamed")
    if quirks.unsupported:
        lines.append(f"rejects {', '.join(sorted(quirks.unsupported))}: dropped, named in x-aig-warning")
    if model.is_reasoning and quirks.unsupported_when_reasoning:
        lines.append(f"rejects {', '.join(sorted(quirks.unsupported_when_reasoning))} while it reasons")
    for name, (low, high) in quirks.clamps.items():
        lines.append(f"takes {name} from {low:g} to {high:g}")
    if quirks.effort:
        lines.append(f"reasoning_effort: {', '.join(quirks.effort)}")
    if model.is_reasoning and quirks.thinking == "toggle":
        lines.append('thinks or not: reasoning_effort "none" switches it off')
    if model.is_reasoning:
        shown = "reports only how many tokens it thought" if quirks.reasoning_field == "none" else "answers reasoning_content beside content"
        lines.append(shown)
    return lines
