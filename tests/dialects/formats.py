"""The four formats of conversations as one table, so that a law is written once: their recordings, how a request of each is read, and what
its stream adds up to by a reading of our own. A dialect is reached through DIALECTS only."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from aigate.core.call import Call, Warning
from aigate.core.edits import apply_to_request, plan_request
from aigate.core.neutral import Request, leave_home
from aigate.core.target import Quirks, Target
from aigate.core.usage import NOTHING, Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Dialect, Settlement
from aigate.dialects.lost import lost_fields
from aigate.errors import ProviderError
from tests.dialects import anthropic_recorded, gemini_traffic, streaming
from tests.dialects.recorded import ALL, FOLDER, recorded_target, target
from tests.dialects.streaming import slices

ASKED = "mock/asked"
SAMPLE = 4


class Format(NamedTuple):
    name: str
    endpoint: str
    has_path: Callable[[str], bool]
    fold: Callable[[bytes], dict[str, Any]]  # a stream → the plain reply it stands for

    @property
    def dialect(self) -> Dialect:
        return DIALECTS[self.name]


def _fold_chat(out: bytes) -> dict[str, Any]:
    chunks = [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
    choices = []
    for index, folded in sorted(streaming.fold(chunks).items()):
        calls = [
            {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
            for call in folded["tool_calls"].values()
        ]
        deltas = [choice["delta"] for chunk in chunks for choice in chunk.get("choices") or [] if choice["index"] == index]
        message = {
            "role": "assistant", "content": folded["content"] or None, "reasoning_content": folded["reasoning_content"] or None,
            "refusal": "".join(delta.get("refusal") or "" for delta in deltas) or None, **({"tool_calls": calls} if calls else {}),
        }  # fmt: skip
        choices.append({"index": index, "message": message, "finish_reason": folded["finish_reason"]})
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    return {**{key: value for key, value in chunks[-1].items() if key not in ("choices", "x_groq")}, "choices": choices, "usage": usage}


def _fold_responses(out: bytes) -> dict[str, Any]:
    events = [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events[-1]["response"]


def _fold_gemini(out: bytes) -> dict[str, Any]:
    blocks = out.replace(b"\r\n", b"\n").split(b"\n\n")
    return json.loads(gemini_traffic.fold(json.loads(block[6:]) for block in blocks if block.startswith(b"data: {")))


_TABLE = (
    Format("openai-chat", "chat", lambda path: path.endswith("chat/completions"), _fold_chat),
    Format("openai-responses", "responses", lambda path: path.endswith("/responses"), _fold_responses),
    Format("anthropic-messages", "chat", lambda path: path.endswith("/v1/messages"), anthropic_recorded.fold),
    Format("gemini", "chat", lambda path: "enerateContent" in path, _fold_gemini),
)
FORMATS: dict[str, Format] = {form.name: form for form in _TABLE}
PAIRS = [(source, other) for source in _TABLE for other in _TABLE]
CROSSINGS = [(source, other) for source, other in PAIRS if source is not other]


def name_of(value: Any) -> str:
    return value.name if isinstance(value, Format) else str(value)


# --- recordings -----------------------------------------------------------------------------------------------------------------


@cache
def _records() -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in FORMATS}
    for path in sorted(Path(FOLDER).glob("*.jsonl")) if FOLDER else ():
        for line in path.open(encoding="utf-8"):
            record = json.loads(line)
            form = next((form for form in _TABLE if form.has_path(record["path"])), None)
            if form is not None:
                found[form.name].append(record)
    return found


def records(form: Format, *, is_stream: bool | None = None, is_answered: bool = True) -> list[dict[str, Any]]:
    """Recorded pairs, sampled unless all are wanted. Answers that only the vendor could give (queued work) are no replies."""
    chosen = [
        record for record in _records()[form.name]
        if (is_stream is None or record["stream"] == is_stream) and (not is_answered or _is_reply(record))
    ]  # fmt: skip
    return chosen if ALL or len(chosen) < 50 else chosen[::SAMPLE]


def _is_reply(record: dict[str, Any]) -> bool:
    return record["status"] == 200 and (record["stream"] or '"status": "queued"' not in record["response"][:2000])


def requests(form: Format) -> list[tuple[dict[str, Any], Call]]:
    """Recorded requests that the surface takes, as calls. What names the vendor's own state is refused, and other tests say how."""
    state = ("conversation", "prompt", "background", "previous_response_id")
    found = []
    for record in records(form):
        if form.name != "openai-responses" or not any(record["request"].get(key) for key in state):
            found.append((record, call_of(form, record["request"], is_stream=record["stream"])))
    return found


def call_of(form: Format, request: dict[str, Any], *, is_stream: bool = False, **headers: str) -> Call:
    action = "streamGenerateContent" if is_stream else "generateContent"
    head = SimpleNamespace(path="/", query="alt=sse", headers={name.replace("_", "-").encode(): value.encode() for name, value in headers.items()})
    if form.name == "gemini":
        head.path = f"/v1beta/models/mock/asked:{action}"
    elif form.name == "anthropic-messages":
        request = {"max_tokens": 64, **request}
    return form.dialect.read_call(json.dumps(request).encode(), form.endpoint, head)


def where(form: Format, quirks: Quirks | None = None) -> Target:
    return target(quirks, dialect=form.name)


def where_recorded(form: Format, record: dict[str, Any]) -> Target:
    return recorded_target(record) if form.name == "openai-chat" else where(form)


# --- crossing -------------------------------------------------------------------------------------------------------------------


def crossed(form: Format, call: Call, other: Format, goal: Target) -> tuple[Request, list[Warning], bytes]:
    """(the request as the other format reads it, what was warned of, the body between them), as an attempt does it."""
    request = form.dialect.read_request(call)
    plan = plan_request(call, request, goal, form.dialect.params)
    apply_to_request(request, plan.edits)
    warnings = list(plan.warnings)
    if form is not other:
        warnings += [*lost_fields(request, other.name), *other.dialect.lost(request, goal)]
        leave_home(request, other.name)
    body = other.dialect.write_request(request, goal)
    again = call_of(other, json.loads(body), is_stream=call.is_stream)
    return other.dialect.read_request(again), warnings, body


class Streamed(NamedTuple):
    out: bytes
    events: list[Any]
    usage: Usage | None
    errors: list[ProviderError]


def streamed(
    data: bytes, form: Format, other: Format, goal: Target, sizes: Sequence[int] = (1 << 30,), *, is_spliced: bool = True, is_array: bool = False
) -> Streamed:
    """`data`, of `form`, through its reader and the writer of `other`, as the relay does it."""
    reader = form.dialect.stream_reader(goal, is_spliced)
    writer = other.dialect.stream_writer(Call(other.name, other.endpoint, {}, 0, (), include_usage=True, is_array=is_array), ASKED, "req_1")
    out, seen, settlement, errors, usage = b"", [], Settlement(NOTHING, 0), [], None
    for events in [*(reader.feed(piece) for piece in slices(data, sizes)), reader.close()]:
        for event in events:
            if event.error is not None:
                errors.append(event.error)
            if event.usage is not None:
                usage = event.usage
                settlement = Settlement(usage, 0, event.raw_usage)
        seen += events
        out += writer.write([event for event in events if event.error is None])
    return Streamed(out + writer.finish(settlement), seen, usage, errors)
