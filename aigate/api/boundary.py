"""The edge of the control plane: request ids, error envelopes, JSON replies.

The one place where an unknown exception becomes a 500. What went wrong is logged by its kind and place, never by its words:
they may hold a secret.
"""

from __future__ import annotations

import math
import re
import secrets
import traceback
from collections.abc import Callable
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aigate.dialects.openai_errors import write_error
from aigate.errors import ClientError, GateError, GatewayError, ledger_unavailable

MAX_BODY_BYTES = 1 << 20  # of any request of the control plane but an upload, whose route counts for itself
MODEL_CALLS = (  # paths that workers answer before anything gets here
    "/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/messages", "/v1/messages/count_tokens", "/v1/responses", "/v1/responses/compact",
)  # fmt: skip
UPLOADS = frozenset({("POST", "/v1/files")})
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_-]{1,80}\Z")
_FORMS = {  # field → what its pattern means
    "month": "must be a month, YYYY-MM",
    "window": "must be a number of days, such as 30d",
    "cursor": "must be the next_cursor of the page before, as it came",
}
_encode = msgspec.json.Encoder().encode


def json_reply(content: object, status: int = 200) -> Response:
    return Response(_encode(content), status, media_type="application/json")


class Boundary:
    """The app's outermost middleware: an id on every reply, one trailing slash ignored, HEAD answered as GET, bodies kept small, no exception let out.

    `outages`: exceptions that mean the database is away."""

    def __init__(self, app: ASGIApp, *, log: Callable[[str], None], outages: tuple[type[Exception], ...] = ()):
        self._app = app
        self._log = log
        self._outages = outages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        if len(path) > 1 and path.endswith("/"):
            scope["path"] = path = path[:-1]
        limit_bytes = math.inf if (scope["method"], path) in UPLOADS else MAX_BODY_BYTES
        request_id = _request_id(scope["headers"])
        is_head = scope["method"] == "HEAD"
        scope["state"] = {"request_id": request_id, "is_head": is_head}
        is_started = False
        body_bytes = 0

        async def receive_within_limit() -> Message:
            nonlocal body_bytes
            message = await receive()
            body_bytes += len(message.get("body", b""))
            if body_bytes > limit_bytes:
                raise HTTPException(413)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:  # what can be got has a head: the server leaves the body out
            await self._app({**scope, "method": "GET"} if is_head else scope, receive_within_limit, send_with_id)
        except Exception as error:  # noqa: BLE001  the one boundary
            self._log(f"{request_id}: {scope['method']} {path}: {_place(error)}")
            if is_started:
                return  # the server sees an unfinished reply and closes the connection: a cut reply must look cut
            if isinstance(error, self._outages):
                shown = ledger_unavailable("The database does not answer.")
            else:
                shown = GatewayError(f"Something went wrong in the gateway; its log says more of {request_id}.")
            await _error_reply(shown, request_id)(scope, receive, send_with_id)


def install_handlers(app: FastAPI, paths: list[str]) -> None:
    """`paths`: of all its routes, for whoever misspells one."""
    known = [*MODEL_CALLS, *(path for path in paths if "{" not in path)]

    async def on_gate_error(request: Request, error: GateError) -> Response:
        return _error_reply(error, request.state.request_id)

    async def on_input_error(request: Request, error: RequestValidationError) -> Response:
        return _error_reply(_input_error(error), request.state.request_id)

    async def on_http_error(request: Request, error: HTTPException) -> Response:
        reply = _error_reply(_http_error(request, error, known), request.state.request_id)
        reply.headers.update(error.headers or {})
        return reply

    app.add_exception_handler(GateError, on_gate_error)
    app.add_exception_handler(RequestValidationError, on_input_error)
    app.add_exception_handler(HTTPException, on_http_error)


def _error_reply(error: GateError, request_id: str) -> Response:
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return Response(write_error(error, request_id), error.status, headers, media_type="application/json")


def _http_error(request: Request, error: HTTPException, known: list[str]) -> GateError:
    path = request.url.path
    if error.status_code == 404:
        return ClientError(f"There is nothing at {path[:200]}{_near(path, known) or '.'}", status=404, code="not_found")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        return ClientError(f"{request.method} is not possible on {path}; use {allowed}.", status=405, code="method_not_allowed")
    if error.status_code == 413:
        words = f"The body has more than {MAX_BODY_BYTES} bytes, the most this route takes."
        return ClientError(words, status=413, code="payload_too_large")
    if error.status_code == 400:  # the framework's only one: a body that its JSON reader gave up on
        return ClientError("The body cannot be read as JSON: it is nested too deeply, or holds a number that is too long.")
    return ClientError(str(error.detail), status=error.status_code)


def _near(path: str, known: list[str]) -> str:
    """The path that was meant, where it is one of ours but for its spelling, or for too little or too much of /v1."""
    from difflib import get_close_matches  # here, as only a mistake needs it

    if path in known:
        return ""
    near = get_close_matches("/v1/" + path[:200].lower().replace("/v1/", "/").strip("/"), known, n=1, cutoff=0.85)
    return f"; did you mean {near[0]}?" if near else ""


def _input_error(error: RequestValidationError) -> ClientError:
    problems = error.errors()
    described = [_describe(problem) for problem in problems[:5]]
    field = described[0][0]
    return ClientError("; ".join(words for _, words in described) + ".", param=field)


def _describe(problem: dict[str, Any]) -> tuple[str | None, str]:
    """(field, what is wrong with it)."""
    place, *path = problem["loc"]
    if problem["type"] == "json_invalid":
        return None, f"The body is not valid JSON: {problem['ctx']['error']} at character {path[0]}"
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if not field:
        return None, "The body must be a JSON object, sent with 'content-type: application/json'"
    if problem["type"] == "extra_forbidden":
        return field, f"{field}: no such field; remove it or correct its name"
    if problem["type"] == "missing":
        return field, f"{field}: missing from the {place}"
    words = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        words = _FORMS.get(field, "has a character, or a form, that is not allowed here")
    value = repr(problem["input"])
    return field, f"{field}: {words[0].lower()}{words[1:]}, got {value if len(value) <= 80 else value[:77] + '…'}"


def _request_id(headers: list[tuple[bytes, bytes]]) -> str:
    """The worker's id for this request; one of our own for what comes straight to the socket."""
    for name, value in headers:
        if name == b"x-aig-request-id" and _REQUEST_ID.match(value):
            return value.decode()
    return "req_" + secrets.token_hex(12)


def _place(error: Exception) -> str:
    """The kind of an exception and the lines it came through."""
    frames = traceback.extract_tb(error.__traceback__)[-6:]
    return f"{type(error).__name__} at " + " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in reversed(frames))
