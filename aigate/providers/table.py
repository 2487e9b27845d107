"""The built-in providers: one row of data each. Nothing here acts, and nothing elsewhere asks for a provider by name.

`ROWS` is what configuration overlays (`[providers.NAME]`). A row with a key variable is live when that is set; a row without one,
when it is configured. Adding a provider that speaks a known wire format is one row here and, at most, a few in quirks.py.
"""

from __future__ import annotations

from aigate.core.target import GOOGLE_TOKEN, Price, Provider, Quirks
from aigate.providers import quirks

_CHAT = {"chat": "openai-chat"}
_OPENAI = {"chat": "openai-chat", "responses": "openai-responses", "compact": "openai-compaction", "embeddings": "openai-embeddings"}
_CHAT_AND_EMBEDDINGS = {"chat": "openai-chat", "embeddings": "openai-embeddings"}

# chat dialect → the dialect of the same vendor's embeddings
EMBEDDINGS_OF = {"openai-chat": "openai-embeddings"}
BATCHES_OF = {"openai-chat": "openai", "openai-responses": "openai", "anthropic-messages": "anthropic"}  # chat format → batch dialect
BATCH_FACTOR = "0.5"  # of the plain price: OpenAI, Anthropic, Groq and others alike (their pricing pages, 2026-11)

# Wire format → headers it cannot do without. Requests from other formats are written in this version; a Messages client's own wins.
HEADERS_OF = {"anthropic-messages": {"anthropic-version": "2023-06-01"}}

# Wire format → how its credential travels, where that is not a bearer token.
AUTH_OF = {"gemini": "header:x-goog-api-key"}

# The same for formats of media jobs, of providers that have no other.
JOB_HEADERS_OF = {"runway": {"x-runway-version": "2024-11-06"}}
JOB_AUTH_OF = {
    "google-veo": "header:x-goog-api-key",
    "google-omni": "header:x-goog-api-key",
    "fal": "scheme:Key",
    "elevenlabs-music": "header:xi-api-key",
}

SIM = "sim"  # the one provider that is always there
SIM_JOBS_PATH = "/fal"  # where it takes media jobs, behind its address

# What the simulated provider charges: $0.10, $0.025 (cached) and $0.40 a million tokens. The same as in sim/rates.py (a test says so).
SIM_PRICE = Price(
    rates={"input": (100_000, 1), "cached_input": (25_000, 1), "output": (400_000, 1)},
    source="sim",
)

_REMOTE = (
    Provider(
        name="openai",
        base_url="https://api.openai.com/v1",
        dialects=_OPENAI,
        key_variable="OPENAI_API_KEY",
        quirks=quirks.OPENAI,
        doc="developers.openai.com/api, 2026-08-21",
    ),
    Provider(  # a deployment named otherwise than its model needs its facts and price in [models."azure/NAME"]
        name="azure",
        aliases=("azure-openai",),
        base_url="",
        dialects=_OPENAI,
        auth="header:api-key",
        key_variable="AZURE_OPENAI_API_KEY",
        url_variable="AZURE_OPENAI_ENDPOINT",
        url_path="/openai/v1",
        kin="openai",
        quirks=quirks.OPENAI,
        doc="learn.microsoft.com/azure/foundry/openai/how-to/reasoning, 2026-11-22",
    ),
    Provider(
        name="anthropic",
        base_url="https://api.anthropic.com/v1",
        dialects={"chat": "anthropic-messages"},
        auth="header:x-api-key",
        key_variable="ANTHROPIC_API_KEY",
        headers=HEADERS_OF["anthropic-messages"],
        quirks=quirks.ANTHROPIC,
        doc="platform.claude.com/docs/en/api/messages, 2026-11-22",
    ),
    Provider(
        name="google",
        aliases=("gemini",),
        base_url="https://generativelanguage.googleapis.com/v1beta",
        dialects={"chat": "gemini", "embeddings": "openai-embeddings"},
        jobs="google-omni",
        paths={"embeddings": "/openai/embeddings"},
        auth="header:x-goog-api-key",
        key_variable="GEMINI_API_KEY GOOGLE_API_KEY",
        quirks=quirks.GOOGLE,
        doc="ai.google.dev/api/generate-content, 2026-11-22",
    ),
    Provider(  # dearer in regions than globally: where that matters, its prices go into [models."vertex/NAME"]
        name="vertex",
        aliases=("vertex_ai", "vertexai"),
        base_url="",
        dialects={"chat": "gemini"},
        paths={
            "chat": "/publishers/google/models/{model}:generateContent",
            "stream": "/publishers/google/models/{model}:streamGenerateContent?alt=sse",
        },
        families=(
            (
                "claude-*",
                {
                    "dialects": {"chat": "anthropic-messages"},
                    "paths": {
                        "chat": "/publishers/anthropic/models/{model}:rawPredict",
                        "stream": "/publishers/anthropic/models/{model}:streamRawPredict",
                        "count_tokens": "/publishers/anthropic/models/count-tokens:rawPredict",
                    },
                    "kin": "anthropic",
                },
            ),
        ),
        auth=GOOGLE_TOKEN,
        key_variable="GOOGLE_APPLICATION_CREDENTIALS",
        url_variable="GOOGLE_CLOUD_PROJECT",
        kin="google",
        models=("gemini-*", "claude-*"),
        quirks=quirks.VERTEX,
        doc="docs.cloud.google.com/vertex-ai/generative-ai, 2026-11-22",
    ),
    Provider(
        name="moonshot",
        aliases=("moonshotai",),
        base_url="https://api.moonshot.ai/v1",
        dialects=_CHAT,
        key_variable="MOONSHOT_API_KEY",
        quirks=quirks.MOONSHOT,
        doc="platform.kimi.ai/docs/api/chat, 2026-11-22",
        timeout_s=900.0,  # its own limit before it answers 504
    ),
    Provider(
        name="deepseek",
        base_url="https://api.deepseek.com",
        dialects=_CHAT,
        key_variable="DEEPSEEK_API_KEY",
        quirks=quirks.DEEPSEEK,
        doc="api-docs.deepseek.com, 2026-11-22",
    ),
    Provider(
        name="groq",
        base_url="https://api.groq.com/openai/v1",
        dialects=_CHAT,
        key_variable="GROQ_API_KEY",
        quirks=quirks.GROQ,
        doc="console.groq.com/docs/openai, 2026-11-22",
    ),
    Provider(
        name="mistral",
        aliases=("mistralai",),
        base_url="https://api.mistral.ai/v1",
        dialects=_CHAT_AND_EMBEDDINGS,
        key_variable="MISTRAL_API_KEY",
        quirks=quirks.MISTRAL,
        doc="docs.mistral.ai/api, 2026-11-22",
    ),
    Provider(
        name="xai",
        aliases=("x-ai",),
        base_url="https://api.x.ai/v1",
        dialects=_CHAT,
        key_variable="XAI_API_KEY",
        quirks=quirks.XAI,
        doc="docs.x.ai/developers, 2026-11-22",
        timeout_s=900.0,  # the vendor's advice for reasoning models
    ),
    Provider(
        name="openrouter",
        base_url="https://openrouter.ai/api/v1",
        dialects=_CHAT_AND_EMBEDDINGS,
        key_variable="OPENROUTER_API_KEY",
        quirks=quirks.OPENROUTER,
        doc="openrouter.ai/docs/api-reference, 2026-11-22",
    ),
    Provider(
        name="cerebras",
        base_url="https://api.cerebras.ai/v1",
        dialects=_CHAT,
        key_variable="CEREBRAS_API_KEY",
        quirks=quirks.CEREBRAS,
        doc="inference-docs.cerebras.ai/resources/openai, 2026-11-22",
    ),
    Provider(
        name="zai",
        aliases=("z-ai", "zhipuai"),
        base_url="https://api.z.ai/api/paas/v4",
        dialects=_CHAT,
        key_variable="ZAI_API_KEY ZHIPU_API_KEY",
        quirks=quirks.ZAI,
        doc="docs.z.ai/guides/capabilities/thinking, 2026-08-14",
    ),
    Provider(
        name="huggingface",
        aliases=("hf",),
        base_url="https://router.huggingface.co/v1",
        dialects=_CHAT,
        key_variable="HF_TOKEN",
        quirks=quirks.HUGGINGFACE,
        doc="huggingface.co/docs/inference-providers, 2026-08-22",
    ),
    Provider(
        name="together",
        aliases=("together_ai", "togetherai"),
        base_url="https://api.together.ai/v1",
        dialects=_CHAT_AND_EMBEDDINGS,
        key_variable="TOGETHER_API_KEY",
        quirks=quirks.TOGETHER,
        doc="docs.together.ai/docs/inference/chat, 2026-11-22",
    ),
    Provider(
        name="fireworks",
        aliases=("fireworks_ai", "fireworks-ai"),
        base_url="https://api.fireworks.ai/inference/v1",
        dialects=_CHAT_AND_EMBEDDINGS,
        key_variable="FIREWORKS_API_KEY",
        quirks=quirks.FIREWORKS,
        doc="docs.fireworks.ai/tools-sdks/openai-compatibility, 2026-11-22",
    ),
)


def _media(name: str, base_url: str, key_variable: str, doc: str, *, jobs: str = "") -> Provider:
    """A provider of media jobs and nothing else; its format has its name unless said."""
    jobs = jobs or name
    return Provider(
        name=name,
        base_url=base_url,
        dialects={},
        jobs=jobs,
        auth=JOB_AUTH_OF.get(jobs, "bearer"),
        headers=JOB_HEADERS_OF.get(jobs, {}),
        key_variable=key_variable,
        quirks=(("*", Quirks()),),
        doc=doc,
    )


_MEDIA = (
    _media("runway", "https://api.dev.runwayml.com/v1", "RUNWAYML_API_SECRET", "docs.dev.runwayml.com/api, 2026-10-20"),
    _media("luma", "https://agents.lumalabs.ai/v1", "LUMA_AGENTS_API_KEY", "docs.agents.lumalabs.ai/guides, 2026-09-19"),
    _media("replicate", "https://api.replicate.com/v1", "REPLICATE_API_TOKEN", "replicate.com/docs/reference/http, 2026-11-28"),
    _media("fal", "https://queue.fal.run", "FAL_KEY", "fal.ai/docs/documentation/model-apis/inference/queue, 2026-11-28"),
    _media(
        "elevenlabs", "https://api.elevenlabs.io/v1", "ELEVENLABS_API_KEY",
        "elevenlabs.io/docs/api-reference/music/compose, 2026-11-28", jobs="elevenlabs-music",
    ),
    _media("stability", "https://api.stability.ai", "STABILITY_API_KEY", "platform.stability.ai/docs/api-reference, 2025-09-29"),
    _media("meshy", "https://api.meshy.ai/openapi", "MESHY_API_KEY", "docs.meshy.ai/en/api/text-to-3d, 2026-11-28"),
)  # fmt: skip


def _local(name: str, port: int, rows: quirks.QuirkRows, doc: str) -> Provider:
    """A server on the operator's own machine: no key, no price, live when its base URL is configured."""
    return Provider(
        name=name,
        base_url=f"http://127.0.0.1:{port}/v1",
        dialects=_CHAT_AND_EMBEDDINGS,
        auth="bearer",
        unpriced="allow",
        quirks=rows,
        doc=doc,
    )


_LOCAL = (
    _local("ollama", 11434, quirks.OLLAMA, "docs/api/openai-compatibility.mdx, 2026-08-21"),
    _local("vllm", 8000, quirks.VLLM, "docs.vllm.ai/serving/openai_compatible_server, 2026-11-22"),
    _local("llamacpp", 8080, quirks.LLAMACPP, "tools/server/README.md, 2026-11-22"),
    _local("lmstudio", 1234, quirks.LMSTUDIO, "lmstudio.ai/docs/developer/openai-compat, 2026-04-29"),
)

_SIM = Provider(
    name=SIM,
    base_url="",  # a socket of the data directory, known at start
    dialects=_CHAT_AND_EMBEDDINGS,
    jobs="fal",
    auth="none",
    sends_attempt_id=True,
    quirks=quirks.SIM,
    doc="aigate/sim",
)

ROWS: dict[str, Provider] = {row.name: row for row in (*_REMOTE, *_MEDIA, *_LOCAL, _SIM)}
