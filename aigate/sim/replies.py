"""How the simulated provider writes what it says: OpenAI-chat JSON, SSE events, errors. Pure; faults of the connection are play.py's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from aigate.sim.answers import Answer, Answers, ChatRequest, ToolCall
from aigate.sim.behaviours import PARTS, Behaviour
from aigate.sim.media_behaviours import KINDS, MEDIA_PARTS

# Stands in the text for Behaviour.pad_bytes of filler, which are never held in memory. JSON leaves it as it is.
PADDING = "[padding of the simulated provider]"

encode = msgspec.json.Encoder().encode


class Piece(msgspec.Struct):
    """Bytes that go out together, and how many tokens of content they carry."""

    data: bytes
    tokens: int = 0


class Identity(msgspec.Struct):
    """What every part of one reply repeats."""

    id: str
    created: int  # unix seconds
    model: str


# --- plain --------------------------------------------------------------------------------------------------------------------


def usage_of(prompt_tokens: int, cached_tokens: int, completion_tokens: int, reasoning_tokens: int) -> dict:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": reasoning_tokens},
    }


def full_usage(answers: Answers) -> dict:
    return usage_of(answers.prompt_tokens, answers.cached_tokens, answers.completion_tokens, answers.reasoning_tokens)


def plain_body(identity: Identity, answers: Answers, behaviour: Behaviour) -> bytes:
    if behaviour.is_garbage:
        return b'{"id":"' + identity.id.encode() + b'","object":"chat.completion","choices":[{"mess'
    reply = {
        "id": identity.id,
        "object": "chat.completion",
        "created": identity.created,
        "model": identity.model,
        "system_fingerprint": "sim",
        "choices": [
            {"index": at, "message": _message(answer, behaviour), "logprobs": None, "finish_reason": answer.finish_reason}
            for at, answer in enumerate(answers.choices)
        ],
    }
    if behaviour.usage != "none":
        reply["usage"] = full_usage(answers)
    return encode(reply)


def _message(answer: Answer, behaviour: Behaviour) -> dict:
    content = "".join(answer.content) + (PADDING if behaviour.pad_bytes else "")
    message: dict = {"role": "assistant", "content": None if answer.calls else content, "refusal": None}
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)
    if answer.calls:
        message["tool_calls"] = [_call(call, "".join(call.fragments)) for call in answer.calls]
    return message


def _call(call: ToolCall, arguments: str) -> dict:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


def halves(body: bytes, tokens: int) -> Iterator[Piece]:
    """A plain reply as the two pieces between which a fault can fall; all its tokens are in the first."""
    middle = len(body) // 2
    yield Piece(body[:middle], tokens)
    yield Piece(body[middle:])


# --- streamed -----------------------------------------------------------------------------------------------------------------


def stream_pieces(identity: Identity, answers: Answers, behaviour: Behaviour, *, asks_usage: bool) -> Iterator[Piece]:
    """The events of a stream, one piece each, `[DONE]` included."""
    writer = _ChunkWriter(identity, answers, behaviour, asks_usage)
    pieces = writer.pieces()
    if behaviour.is_garbage:
        pieces = _with_garbage(pieces)
    if behaviour.newline == b"\n":
        return pieces
    return (Piece(piece.data.replace(b"\n", behaviour.newline), piece.tokens) for piece in pieces)


class _ChunkWriter:
    """Writes chunks with a constant head; knows where usage goes."""

    def __init__(self, identity: Identity, answers: Answers, behaviour: Behaviour, asks_usage: bool) -> None:
        head = {"id": identity.id, "object": "chat.completion.chunk", "created": identity.created, "model": identity.model}
        self.head = b"data: " + encode(head | {"system_fingerprint": "sim"})[:-1] + b',"choices":['
        self.answers = answers
        self.behaviour = behaviour
        self.place = behaviour.usage
        self.adds_last = (self.place == "asked" and asks_usage) or self.place == "choices"
        self.tail = b'],"usage":null}\n\n' if self.place == "asked" and asks_usage else b"]}\n\n"
        self.tokens = self.reasoning_tokens = 0  # said so far
        self.unfinished = len(answers.choices)

    def pieces(self) -> Iterator[Piece]:
        choices = self.answers.choices
        for index, _ in enumerate(choices):
            tail = self._usage_tail(full_usage(self.answers)) if self.place == "first" and index == 0 else None
            yield self._chunk(index, b'{"role":"assistant","content":""}', 0, tail=tail)
        waiting = [(index, _deltas(answer, self.behaviour)) for index, answer in enumerate(choices)]
        while waiting:  # one token of each choice in turn
            still = []
            for index, deltas in waiting:
                delta = next(deltas, None)
                if delta is None:
                    yield self._finish(index)
                else:
                    self.reasoning_tokens += delta[2]
                    yield self._chunk(index, delta[0], delta[1])
                    still.append((index, deltas))
            waiting = still
        if self.adds_last:
            yield Piece(self.head + self._usage_tail(full_usage(self.answers)))
        if self.behaviour.sends_done:
            yield Piece(b"data: [DONE]\n\n")

    def _chunk(self, index: int, delta: bytes, tokens: int, *, tail: bytes | None = None) -> Piece:
        self.tokens += tokens
        if tail is None:
            tail = self._usage_tail(self._usage_so_far()) if self.place == "every" else self.tail
        return Piece(b'%b{"index":%d,"delta":%b,"logprobs":null,"finish_reason":null}%b' % (self.head, index, delta, tail), tokens)

    def _finish(self, index: int) -> Piece:
        """The chunk with the finish reason; usage is on the last of them, where it is to be on one."""
        answers, place = self.answers, self.place
        choice = {"index": index, "delta": {}, "logprobs": None, "finish_reason": answers.choices[index].finish_reason}
        tail = self.tail
        self.unfinished -= 1
        if place == "every":
            tail = self._usage_tail(self._usage_so_far())
        elif place in ("finish", "groq", "choices") and not self.unfinished:
            usage = full_usage(answers)
            if place == "choices":
                choice["usage"] = usage
            else:
                tail = self._usage_tail(usage) if place == "finish" else b'],"x_groq":' + encode({"usage": usage}) + b"}\n\n"
        return Piece(self.head + encode(choice) + tail)

    def _usage_so_far(self) -> dict:
        answers = self.answers
        return usage_of(answers.prompt_tokens, answers.cached_tokens, self.tokens, self.reasoning_tokens)

    @staticmethod
    def _usage_tail(usage: dict) -> bytes:
        return b'],"usage":' + encode(usage) + b"}\n\n"


def _deltas(answer: Answer, behaviour: Behaviour) -> Iterator[tuple[bytes, int, int]]:
    """(delta, tokens, reasoning tokens) of each chunk of one choice."""
    for token in answer.reasoning:
        yield b'{"reasoning_content":%b}' % encode(token), 1, 1
    for token in answer.content:
        yield b'{"content":%b}' % encode(token), 1, 0
    if behaviour.pad_bytes:
        yield b'{"content":%b}' % encode(PADDING), 0, 0
    for index, call in enumerate(answer.calls):
        yield encode({"tool_calls": [{"index": index} | _call(call, "")]}), 0, 0
        for fragment in call.fragments:
            yield encode({"tool_calls": [{"index": index, "function": {"arguments": fragment}}]}), 1, 0


def _with_garbage(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """After the first tokens, one event that is not JSON."""
    for at, piece in enumerate(pieces):
        yield piece
        if at == 2:
            yield Piece(b'data: {"choices":[{"index":0,"delta":{"cont\n\n')


def error_event() -> bytes:
    """A failure after the 200: an event with an error, and nothing more."""
    return b"data: " + error_body(500, "The simulated provider failed in the middle of its answer, as asked.") + b"\n\n"


# --- errors and lists ---------------------------------------------------------------------------------------------------------

_ERROR_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(status: int, message: str, *, param: str | None = None, code: str | None = None) -> bytes:
    kind = _ERROR_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def refusal(behaviour: Behaviour, credential: str) -> tuple[str, bytes, tuple[tuple[str, str], ...]]:
    """The reply of a behaviour that fails by status: its content type, body and further headers.

    A 401 repeats the credential it got, as real providers were seen to: whoever passes it on shows a secret."""
    status = behaviour.status
    if behaviour.is_html:
        page = f"<html><head><title>{status}</title></head><body><h1>{status}</h1><hr>simulated provider</body></html>\r\n"
        return "text/html", page.encode(), ()
    message = f"Incorrect API key provided: {credential}." if status == 401 else f"The simulated provider answers {status}, as asked."
    retry_after_s = behaviour.retry_after_s if behaviour.retry_after_s is not None else 1 if status in (429, 503) else None
    headers = () if retry_after_s is None else (("retry-after", str(retry_after_s)),)
    return "application/json", error_body(status, message), headers


def model_list(created: int) -> bytes:
    """One model per behaviour; any other name answers as `echo`."""
    described = [*((part.example, part.says) for part in PARTS), *KINDS.items(), *((part.example, part.says) for part in MEDIA_PARTS)]
    models = [{"id": name, "object": "model", "created": created, "owned_by": "aigate", "description": says} for name, says in described]
    return encode({"object": "list", "data": models})


def asks_usage(request: ChatRequest) -> bool:
    return bool((request.stream_options or {}).get("include_usage"))
