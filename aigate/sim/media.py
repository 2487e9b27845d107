"""The simulated media service over HTTP, in two real providers' forms: OpenAI videos under /v1/videos, fal's queue under /fal.

Takes orders, tells how they stand, gives their files, calls webhooks, and misbehaves as the model's name says. The book is media_desk.py's.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from aigate.sim.behaviours import UnknownBehaviour
from aigate.sim.media_behaviours import read_media_behaviour
from aigate.sim.media_desk import MediaDesk, MediaFile, Stand, Submission, length_of
from aigate.sim.play import Reply, head
from aigate.sim.replies import encode, error_body
from aigate.sim.server import Connection, Request

JSON = "application/json"
_PIECE = bytes(64 << 10)
_HOOK_TRIES, _HOOK_TIMEOUT_S = 4, 10.0
_FAL_STATES = {"queued": "IN_QUEUE", "processing": "IN_PROGRESS", "completed": "COMPLETED", "failed": "COMPLETED", "cancelled": "COMPLETED"}
_VIDEO_STATES = {"queued": "queued", "processing": "in_progress", "completed": "completed", "failed": "failed"}


class _Answer(NamedTuple):
    """A JSON reply; status 0: none, the connection ends."""

    status: int
    body: bytes = b""


class _Refused(Exception):
    """The request ends with this answer."""

    def __init__(self, status: int, body: bytes = b"") -> None:
        self.answer = _Answer(status, body)


_CUT = 0
_Found = tuple[Submission, MediaFile]


class MediaService:
    """`takes` says whether a request is its own; `handle` answers it."""

    def __init__(self, jobs_path: str | None, seed: int) -> None:
        self.desk = MediaDesk(jobs_path, seed, time.time)
        self._tasks: set[asyncio.Task[None]] = set()
        self._refused: dict[tuple[str, str], int] = {}  # (model, prompt) → refusals so far
        self._looks: dict[str, int] = {}  # looks at a job so far
        self._cut: set[str] = set()  # jobs whose file was cut once

    def start(self) -> None:
        """Webhooks of jobs that a former process took and that may not have been called."""
        for submission in self.desk.submissions.values():
            self._watch(submission)

    @staticmethod
    def takes(path: str) -> bool:
        return path == "/v1/videos" or path.startswith(("/v1/videos/", "/fal/"))

    def handle(self, connection: Connection, request: Request) -> None:
        path, _, query = request.target.partition("?")
        parts = [unquote(part) for part in path.strip("/").split("/")]
        answer = self._videos if parts[0] == "v1" else self._fal
        try:
            found = answer(request, parts[2 if parts[0] == "v1" else 1 :], parse_qs(query))
        except _Refused as refused:
            found = refused.answer
        if isinstance(found, _Answer):
            _send(connection, request, found)
            return
        submission, file = found
        task = self._spawn(_send_file(connection, request, file, is_cut=self._is_to_be_cut(submission)))
        connection.on_gone = task.cancel

    async def drain(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.desk.close()

    def reset(self) -> None:
        self.desk.reset()
        self._refused.clear()
        self._looks.clear()
        self._cut.clear()

    # --- OpenAI videos

    def _videos(self, request: Request, parts: list[str], query: dict[str, list[str]]) -> _Answer | _Found:
        if not parts and request.method == "POST":
            submission = self._submit(self._read_video(request))
            return _Answer(200, encode(self._video(submission)))
        if not parts and request.method == "GET":
            found = self._found(query, list(self.desk.submissions.values()))
            return _Answer(200, encode({"object": "list", "data": [self._video(each) for each in found], "has_more": False}))
        submission = self.desk.submissions.get(parts[0]) if parts else None
        if submission is None or submission.cancelled_s is not None:
            return _Answer(404, error_body(404, "Video not found.", code="video_not_found"))
        if parts[1:] == ["content"] and request.method == "GET":
            if self.desk.stand(submission).state != "completed":
                return _Answer(409, error_body(409, "The video is not ready."))
            return submission, self.desk.file(submission)
        if len(parts) > 1 or request.method not in ("GET", "DELETE"):
            return _Answer(404, error_body(404, f"The simulated provider has no {request.method} {request.target}."))
        if request.method == "DELETE":
            self.desk.cancel(submission)
            return _Answer(200, encode({"id": submission.id, "object": "video.deleted", "deleted": True}))
        self._be_flaky(submission)
        return _Answer(200, encode(self._video(submission)))

    def _read_video(self, request: Request) -> Submission:
        fields = _read_fields(request)
        wide, _, high = str(fields.get("size") or "1280x720").partition("x")
        shape, lines = "16:9", "720p"
        if wide.isdecimal() and high.isdecimal():
            shape = "1:1" if wide == high else "16:9" if int(wide) > int(high) else "9:16"
            lines = f"{min(int(wide), int(high))}p"
        order = {**fields, "duration": fields.get("seconds") or 4, "shape": shape, "lines": lines}
        return self._order(request, "openai-videos", str(fields.get("model") or "video"), order)

    def _video(self, submission: Submission) -> dict[str, object]:
        stand = self.desk.stand(submission)
        code = "moderation_blocked" if stand.is_blocked else "internal_error"
        return {
            "id": submission.id, "object": "video", "model": submission.model, "created_at": int(submission.created_s),
            "status": _VIDEO_STATES.get(stand.state, "failed"), "progress": int(stand.progress * 100), "prompt": submission.prompt,
            "seconds": f"{submission.seconds:g}", "size": self.desk.size(submission),
            "completed_at": None if stand.ended_s is None else int(stand.ended_s),
            "error": {"code": code, "message": stand.message} if stand.state == "failed" else None,
        }  # fmt: skip

    # --- fal

    def _fal(self, request: Request, parts: list[str], query: dict[str, list[str]]) -> _Answer | _Found:
        method = request.method
        if parts[0] == "requests" and method == "GET":
            return _Answer(200, encode({"requests": [{"request_id": found.id} for found in self._found(query, [])]}))
        if parts[0] == "files" and len(parts) == 3 and method == "GET":
            submission = self._known(parts[1])
            if self.desk.stand(submission).state != "completed":
                return _Answer(404, encode({"detail": "Not found"}))
            return submission, self.desk.file(submission)
        if "requests" not in parts:
            if method != "POST":
                return _Answer(405, encode({"detail": "Method Not Allowed"}))
            fields = _read_fields(request)
            shape, lines = str(fields.get("aspect_ratio") or "16:9"), str(fields.get("resolution") or "720p")
            wanted = self._order(request, "fal", "/".join(parts), {**fields, "shape": shape, "lines": lines})
            wanted.webhook = query.get("fal_webhook", [""])[0]
            submission = self._submit(wanted)
            return _Answer(200, encode({"status": "IN_QUEUE", "request_id": submission.id, "queue_position": 0}))
        at = parts.index("requests")
        submission = self._known(parts[at + 1] if len(parts) > at + 1 else "")
        asked = (method, *parts[at + 2 :])
        if asked == ("PUT", "cancel"):
            is_stopped = self.desk.cancel(submission)
            return _Answer(202 if is_stopped else 400, encode({"status": "CANCELLATION_REQUESTED" if is_stopped else "ALREADY_COMPLETED"}))
        if asked == ("GET", "status"):
            self._be_flaky(submission)
            return _Answer(200, encode(self._fal_status(submission)))
        if asked == ("GET",):
            return self._fal_output(submission)
        return _Answer(404, encode({"detail": "Not found"}))

    def _fal_status(self, submission: Submission) -> dict[str, object]:
        stand = self.desk.stand(submission)
        body: dict[str, object] = {"status": _FAL_STATES[stand.state], "request_id": submission.id}
        if stand.state == "failed":
            body |= {"error": stand.message, "error_type": "content_policy_violation" if stand.is_blocked else "internal_error"}
        elif stand.state == "cancelled":
            body |= {"error": "The request was cancelled.", "error_type": "client_cancelled"}
        return body

    def _fal_output(self, submission: Submission) -> _Answer:
        stand = self.desk.stand(submission)
        if stand.state == "completed":
            return _Answer(200, encode(self._payload(submission)))
        if stand.state in ("failed", "cancelled"):
            return _Answer(422, encode({"detail": [{"loc": ["body"], "msg": stand.message or "cancelled", "type": "simulated"}]}))
        return _Answer(400, encode({"detail": "Request is still in progress"}))

    def _payload(self, submission: Submission) -> dict[str, object]:
        file = self.desk.file(submission)
        name = {"video": "video", "music": "audio", "3d": "model_mesh"}[submission.behaviour.kind]
        entry: dict[str, object] = {"url": f"/files/{submission.id}/{file.name}", "content_type": file.media_type, "file_name": file.name}
        if submission.seconds:
            entry["duration"] = submission.seconds
        return {name: entry, "note": "Made by aigate's simulated provider: no model was at work."}

    # --- both

    def _order(self, request: Request, form: str, model: str, fields: dict) -> Submission:
        """Raises _Answer for what cannot be made."""
        try:
            kind = read_media_behaviour(model).kind
            seconds = length_of(kind, float(_text(fields.get("duration") or 5).removesuffix("s")))
            seed = int(_text(fields.get("seed") or 0))
        except UnknownBehaviour as error:
            raise _Refused(404, error_body(404, str(error), param="model", code="model_not_found")) from error
        except ValueError as error:
            raise _Refused(422, error_body(422, f"A length or a seed is no number: {error}")) from error
        prompt = fields.get("prompt")
        if not isinstance(prompt, str | None) or (kind != "3d" and not prompt):
            raise _Refused(422, error_body(422, "'prompt' must be a text.", param="prompt"))
        return Submission(
            id=self.desk.new_id(), form=form, model=model, created_s=self.desk.now(), prompt=_text(prompt or ""), seconds=seconds, seed=seed,
            shape=_text(fields["shape"]), resolution=_text(fields["lines"]),
            key=request.header(b"idempotency-key"), attempt=request.header(b"x-aig-attempt"),
        )  # fmt: skip

    def _submit(self, wanted: Submission) -> Submission:
        how = wanted.behaviour
        refused = self._refused.get((wanted.model, wanted.prompt), 0)
        if how.status != 200 and refused < how.failures:
            self._refused[wanted.model, wanted.prompt] = refused + 1
            raise _Refused(how.status, error_body(how.status, f"The simulated provider answers {how.status}, as asked."))
        if how.loses == "request":
            raise _Refused(_CUT)
        submission = self.desk.submit(wanted)
        if submission is wanted:
            self._watch(submission)
        if how.loses == "reply" and submission is wanted:  # whoever asks again with the same key is told
            raise _Refused(_CUT)
        return submission

    def _known(self, job_id: str) -> Submission:
        submission = self.desk.submissions.get(job_id)
        if submission is None:
            raise _Refused(404, encode({"detail": "Request not found"}))
        return submission

    def _found(self, query: dict[str, list[str]], otherwise: list[Submission]) -> list[Submission]:
        """The one job of ?idempotency_key=…, else the list."""
        if "idempotency_key" not in query:
            return otherwise
        submission = self.desk.find(query["idempotency_key"][0])
        return [] if submission is None else [submission]

    def _be_flaky(self, submission: Submission) -> None:
        looks = self._looks[submission.id] = self._looks.get(submission.id, 0) + 1
        if submission.behaviour.is_flaky and looks % 2:
            raise _Refused(503, error_body(503, "The simulated provider is away, as asked."))

    def _is_to_be_cut(self, submission: Submission) -> bool:
        is_first = submission.id not in self._cut
        self._cut.add(submission.id)
        return submission.behaviour.cuts_file and is_first

    # --- webhooks

    def _watch(self, submission: Submission) -> None:
        if submission.webhook and submission.behaviour.posts:
            self._spawn(self._post_when_done(submission))

    async def _post_when_done(self, submission: Submission) -> None:
        while (stand := self.desk.stand(submission)).ended_s is None:
            rest_s = submission.created_s + submission.behaviour.takes_s - self.desk.now()
            await asyncio.sleep(min(rest_s, 1.0) if rest_s > 0 else 0.25)  # never longer, as it may be cancelled
        body = encode(self._hook_body(submission, stand))
        for _ in range(submission.behaviour.posts):
            for again in range(_HOOK_TRIES):
                if await _post(submission.webhook, body):
                    self.desk.posts[submission.id] = self.desk.posts.get(submission.id, 0) + 1
                    break
                await asyncio.sleep(0.25 * 2**again)

    def _hook_body(self, submission: Submission, stand: Stand) -> dict[str, object]:
        if stand.state == "completed":
            return {"request_id": submission.id, "gateway_request_id": submission.id, "status": "OK", "payload": self._payload(submission)}
        return {"request_id": submission.id, "gateway_request_id": submission.id, "status": "ERROR", "error": stand.message or stand.state}

    def _spawn(self, work) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _text(value: object) -> str:
    """As text that can be written down: JSON allows half a character."""
    return str(value).encode("utf-8", "replace").decode()


def _read_fields(request: Request) -> dict:
    """The fields of a JSON body or a form; files only as being there."""
    content_type = request.header(b"content-type")
    if content_type.lower().startswith("multipart/form-data"):
        from email import message_from_bytes  # here, as only a form needs it

        message = message_from_bytes(b"content-type: " + content_type.encode("latin-1") + b"\r\n\r\n" + request.body)
        fields: dict = {}
        for part in message.get_payload() if message.is_multipart() else []:
            name = str(part.get_param("name", "", header="content-disposition"))
            fields[name] = True if part.get_filename() else (part.get_payload(decode=True) or b"").decode("utf-8", "replace")
        return fields
    try:
        body = json.loads(request.body)
    except ValueError as error:
        raise _Refused(400, error_body(400, f"The request body cannot be used: {error}")) from error
    if not isinstance(body, dict):
        raise _Refused(400, error_body(400, "The request body must be an object."))
    return body


def _send(connection: Connection, request: Request, answer: _Answer) -> None:
    if answer.status == _CUT:
        connection.close()
        return
    headers = (("retry-after", "1"),) if answer.status in (429, 503) else ()
    reply = Reply(status=answer.status, content_type=JSON, headers=headers, charge=_charge_nobody)
    connection.write(head(reply, request, length=len(answer.body), is_chunked=False) + answer.body)
    connection.finish()


async def _send_file(connection: Connection, request: Request, file: MediaFile, *, is_cut: bool) -> None:
    reply = Reply(status=200, content_type=file.media_type, charge=_charge_nobody)
    whole = len(file.data) + file.pad_bytes
    connection.write(head(reply, request, length=whole, is_chunked=False))
    if is_cut:
        connection.write(file.data[: len(file.data) // 2])
        connection.close()
        return
    connection.write(file.data)
    left = file.pad_bytes
    while left > 0:
        await connection.drained()
        connection.write(_PIECE[:left])
        left -= len(_PIECE)
    connection.finish()


async def _post(url: str, body: bytes) -> bool:
    """One call of a webhook; whether it was answered with 2xx."""
    parts = urlsplit(url)
    is_tls = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    heading = f"POST {path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: {JSON}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
    try:
        async with asyncio.timeout(_HOOK_TIMEOUT_S):
            context = ssl.create_default_context() if is_tls else None
            reader, writer = await asyncio.open_connection(parts.hostname or "", parts.port or (443 if is_tls else 80), ssl=context)
            try:
                writer.write(heading.encode("latin-1") + body)
                await writer.drain()
                status = (await reader.readline()).split(b" ")
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False
    return len(status) > 1 and status[1].startswith(b"2")


def _charge_nobody(end: str) -> None:
    """Media is charged by the book, not by the reply."""
