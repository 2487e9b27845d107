"""Candidates of Gemini ↔ what a neutral choice says beside its parts: finish reasons, citations, log-probabilities. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aigate.core.neutral import Bag, Citation, Part, Text

_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}
_FILTERED = frozenset(
    {
        "SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY", "IMAGE_PROHIBITED_CONTENT",
        "IMAGE_RECITATION", "MODEL_ARMOR",
    }
)  # fmt: skip
_REASONS = {
    "stop": "STOP", "tool_calls": "STOP", "function_call": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY", "refusal": "SAFETY"
}  # fmt: skip


def read_finish(reason: object, has_calls: bool) -> str | None:
    """A call ends with STOP here: there is no reason of its own for it."""
    if not isinstance(reason, str):
        return None
    if reason in _FILTERED:
        return "content_filter"
    finish = _FINISHES.get(reason, reason)
    return "tool_calls" if finish == "stop" and has_calls else finish


def write_finish(finish: str, bag: Bag) -> str:
    """The wire's word; the one it came with, where it came in this format."""
    said = bag.get("finishReason")
    return said if isinstance(said, str) else _REASONS.get(finish) or (finish if finish.isupper() else "OTHER")


# --- citations ------------------------------------------------------------------------------------------------------------


def read_citations(metadata: object, texts: Sequence[Text]) -> None:
    """Puts each grounded segment on the text it is of. Segments count UTF-8 bytes of one part; ours count characters."""
    chunks = metadata.get("groundingChunks") if type(metadata) is dict else None
    supports = metadata.get("groundingSupports") if type(metadata) is dict else None
    if type(chunks) is not list or type(supports) is not list:
        return
    for support in supports:
        segment = support.get("segment") if type(support) is dict else None
        if type(segment) is not dict:
            continue
        text = _text_of(segment, texts)
        if text is None:
            continue
        places = support.get("groundingChunkIndices")
        for place in places if type(places) is list else ():
            source = chunks[place] if type(place) is int and 0 <= place < len(chunks) else None
            citation = _citation(source, segment, text.text.encode(errors="replace"))
            if citation is not None:
                text.citations.append(citation)


def _text_of(segment: Bag, texts: Sequence[Text]) -> Text | None:
    quoted = segment.get("text")
    if isinstance(quoted, str):
        return next((text for text in texts if quoted in text.text), None)
    return texts[0] if texts else None


def _citation(source: object, segment: Bag, text: bytes) -> Citation | None:
    where = next((value for value in source.values() if type(value) is dict), None) if type(source) is dict else None
    if where is None:
        return None
    start, end = segment.get("startIndex", 0), segment.get("endIndex")
    has_place = type(start) is int and type(end) is int and 0 <= start <= end <= len(text)
    url, title, quoted = (value if isinstance(value, str) else None for value in (where.get("uri"), where.get("title"), segment.get("text")))
    return Citation(
        "document" if url is None else "url",
        url,
        title,
        quoted,
        len(text[:start].decode(errors="ignore")) if has_place else None,
        len(text[:end].decode(errors="ignore")) if has_place else None,
    )


def write_citations(parts: Sequence[Part]) -> Bag | None:
    """The grounding metadata that says the citations of `parts`; None without any."""
    chunks: list[Bag] = []
    supports: list[Bag] = []
    for place, part in enumerate(parts):
        for citation in part.citations if type(part) is Text else ():
            assert type(part) is Text
            start = 0 if citation.start is None else citation.start
            end = len(part.text) if citation.end is None else citation.end
            segment = {
                "partIndex": place,
                "startIndex": len(part.text[:start].encode(errors="replace")),
                "endIndex": len(part.text[:end].encode(errors="replace")),
                "text": part.text[start:end],
            }
            supports.append({"segment": segment, "groundingChunkIndices": [len(chunks)]})
            chunks.append({"web": {"uri": citation.url or "", "title": citation.title or ""}})
    return {"groundingChunks": chunks, "groundingSupports": supports} if chunks else None


# --- log-probabilities ------------------------------------------------------------------------------------------------------


def read_logprobs(result: object) -> Any:
    """In the shape of the neutral form; None where there are none."""
    chosen = result.get("chosenCandidates") if type(result) is dict else None
    if type(chosen) is not list:
        return None
    tops = result.get("topCandidates")  # type: ignore[attr-defined]
    tops = tops if type(tops) is list else []
    content = []
    for place, entry in enumerate(chosen):
        others = tops[place].get("candidates") if place < len(tops) and type(tops[place]) is dict else None
        content.append(_token(entry) | {"top_logprobs": [_token(other) for other in (others if type(others) is list else ())]})
    return {"content": content, "refusal": None}


def _token(entry: Any) -> Bag:
    token, logprob = (entry.get("token"), entry.get("logProbability")) if type(entry) is dict else ("", None)
    token = token if isinstance(token, str) else ""
    return {"token": token, "logprob": -9999.0 if logprob is None else logprob, "bytes": list(token.encode(errors="replace"))}


def write_logprobs(logprobs: object) -> Bag | None:
    content = logprobs.get("content") if type(logprobs) is dict else None
    if type(content) is not list or any(type(entry) is not dict for entry in content):
        return None
    return {
        "chosenCandidates": [_candidate(entry) for entry in content],
        "topCandidates": [{"candidates": [_candidate(other) for other in _others(entry) if type(other) is dict]} for entry in content],
    }


def _others(entry: Bag) -> list[Any]:
    others = entry.get("top_logprobs")
    return others if type(others) is list else []


def _candidate(entry: Bag) -> Bag:
    return {"token": entry.get("token"), "logProbability": entry.get("logprob")}
