"""One pure module (or one per direction) for each wire format; `DIALECTS` is the registry that rows and routes name them by."""

from __future__ import annotations

from aigate.dialects.anthropic import AnthropicMessages
from aigate.dialects.dialect import Dialect, TokenEndpoint
from aigate.dialects.gemini import Gemini
from aigate.dialects.openai_chat import OpenAIChat
from aigate.dialects.openai_compaction import OpenAICompaction
from aigate.dialects.openai_completions import OpenAICompletions
from aigate.dialects.openai_embeddings import OpenAIEmbeddings
from aigate.dialects.openai_responses import OpenAIResponses
from aigate.dialects.token_counts import AnthropicCount, GeminiCount, ResponsesCount

_ALL: tuple[Dialect, ...] = (
    AnthropicMessages(), Gemini(), OpenAIChat(), OpenAICompaction(), OpenAICompletions(), OpenAIEmbeddings(), OpenAIResponses(),
)  # fmt: skip
DIALECTS: dict[str, Dialect] = {dialect.name: dialect for dialect in _ALL}

COUNTERS: dict[str, TokenEndpoint] = {  # formats whose providers count tokens
    "anthropic-messages": AnthropicCount(),
    "gemini": GeminiCount(),
    "openai-responses": ResponsesCount(),
}
