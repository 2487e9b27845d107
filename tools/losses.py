"""What cannot be kept between formats, each with the vendor's page that shows no place for it: the list of docs/dialects.md. A test holds that
every warning ever made on recorded traffic is of one of these."""

from __future__ import annotations

from typing import NamedTuple

CHAT = "https://platform.openai.com/docs/api-reference/chat/create"
RESPONSES = "https://platform.openai.com/docs/api-reference/responses/create"
MESSAGES = "https://platform.claude.com/docs/en/api/messages"
GEMINI = "https://ai.google.dev/api/generate-content"
NAMES = {"chat": "openai-chat", "responses": "openai-responses", "messages": "anthropic-messages", "gemini": "gemini"}


class Loss(NamedTuple):
    into: str  # of NAMES, several by spaces; "" = all
    reason: str  # what the warning says, or a part of it
    says: str
    pages: tuple[str, ...]


_ALL = (CHAT, RESPONSES, MESSAGES, GEMINI)
LOSSES: tuple[Loss, ...] = (
    Loss("", "reasoning of another provider", "proofs of reasoning (signatures, encrypted content) are good at the vendor that made them: the reasoning "
         "stays behind at others", ("https://platform.claude.com/docs/en/build-with-claude/preserved-thinking", "https://ai.google.dev/gemini-api/docs/thought-signatures")),
    Loss("", "is a tool of", "tools that a vendor runs itself (search, code, files, MCP, computer)", _ALL),
    Loss("", "cannot be said in this format", "calls and results of such tools, and kinds of parts that are newer than this gateway", _ALL),
    Loss("", "a file of another provider", "files by id: the id is known to the vendor that keeps the file", ("https://platform.openai.com/docs/api-reference/files", "https://platform.claude.com/docs/en/build-with-claude/files")),
    Loss("gemini", "a file id is known only to", "the same", ("https://ai.google.dev/gemini-api/docs/files",)),
    Loss("", "only the format of the request has it", "fields of one vendor's product: kept caches, containers, MCP servers, context management, safety "
         "and retrieval settings, how to show thoughts", _ALL),
    Loss("", "only auto, none, required and tools by name", "a `tool_choice` in words of one provider, or of its own tools", _ALL),
    Loss("chat responses", "marks no failed results", "`is_error` of a tool result; its text is kept", (CHAT, RESPONSES)),
    Loss("chat", "media of a tool result goes into", "moved: images of a tool result stand in a message of the user after it", (CHAT,)),
    Loss("chat", "by URL is not taken", "documents, audio and video by URL, where the gateway may not fetch them", (CHAT,)),
    Loss("chat gemini", "takes no citations", "citations in earlier answers; their text is kept", (CHAT, GEMINI)),
    Loss("responses", "this format takes no", "audio and video", (RESPONSES,)),
    Loss("responses", "names no speakers", "`name` of a message", (RESPONSES,)),
    Loss("responses", "this format has no such parameter", "`stop`, `seed`, penalties, `logit_bias`, `top_k`, `n`, and fields of one provider", (RESPONSES,)),
    Loss("messages", "is not taken in this format", "audio and video", (MESSAGES,)),
    Loss("messages", "instructions stand before all", "moved: later instructions join the first ones", (MESSAGES,)),
    Loss("messages", "take JSON objects only", "grammars of free-text tools: the text is one string `input`", (MESSAGES,)),
    Loss("messages", "not a JSON object", "arguments of an earlier call that are no JSON object", (MESSAGES,)),
    Loss("messages", "no choice among tools", "`allowed_tools`: a choice among some of the tools", (MESSAGES,)),
    Loss("messages", "cannot be made to call a tool", "a forced tool, on models that refuse to be forced", ("https://platform.claude.com/docs/en/about-claude/models/whats-new-opus-5-5",)),
    Loss("messages", "asked for in the instructions", "emulated: JSON without a schema is asked for in words", ("https://platform.claude.com/docs/en/build-with-claude/structured-outputs",)),
    Loss("messages", "told in the schema's descriptions", "emulated: bounds and patterns in a schema are told in its descriptions",
         ("https://platform.claude.com/docs/en/build-with-claude/structured-outputs",)),
    Loss("messages", "has auto and default", "other service tiers", (MESSAGES,)),
    Loss("messages", "cannot think on this turn", "thinking in the middle of a tool loop that began elsewhere, or while a tool is forced",
         ("https://platform.claude.com/docs/en/build-with-claude/extended-thinking",)),
    Loss("messages", "not a degree of reasoning", "degrees of reasoning of one provider (`default`)", (MESSAGES,)),
    Loss("messages", "this format has no such parameter", "`seed`, `n`, penalties, log-probabilities, `logit_bias`, verbosity, cache keys, "
         "moderation, and fields of one provider", (MESSAGES,)),
    Loss("gemini", "instructions at the beginning only", "moved: later instructions join the first ones", (GEMINI,)),
    Loss("gemini", "needs a message of the user", "moved: a request of instructions alone becomes a message of the user", (GEMINI,)),
    Loss("gemini", "becomes a function of one string", "moved: a free-text tool is a function of one string; its grammar is lost", ("https://ai.google.dev/gemini-api/docs/function-calling",)),
    Loss("gemini", "has no such field", "`detail` of an image", (GEMINI,)),
    Loss("gemini", "has standard, flex and priority", "other service tiers", (GEMINI,)),
    Loss("gemini", "this format has no such parameter", "`parallel_tool_calls: false`, `logit_bias`, metadata, verbosity, moderation, and fields of one provider", (GEMINI,)),
)  # fmt: skip


def loss_of(into: str, reason: str) -> Loss | None:
    """The loss that a warning is of, when it crosses into the format named `into`."""
    for loss in LOSSES:
        if loss.reason in reason and (not loss.into or into in [NAMES[name] for name in loss.into.split()]):
            return loss
    return None


def page() -> str:
    lines = []
    for loss in LOSSES:
        into = "any" if not loss.into else ", ".join(f"`{NAMES[name]}`" for name in loss.into.split())
        sources = ", ".join(f"[{place}]({url})" for place, url in enumerate(loss.pages, 1))
        lines.append(f"- into {into}: {loss.says} ({sources})")
    return "\n".join(lines) + "\n"
