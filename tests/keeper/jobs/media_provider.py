"""A media provider for tests, on a loopback port of its own thread: the OpenAI form of videos, with a mind that tests can look into.

What it does with a submission is said in the prompt: `fail`, `reject`, `busy`, `hang`, `cut`, `slow` (stays in progress until released).
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Callable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIP = b"\x00\x00\x00\x18ftypmp42" + bytes(range(256)) * 64


class MediaProvider:
    """`polls_needed`: how often a job is asked for before it is done."""

    def __init__(self, *, polls_needed: int = 1):
        self.polls_needed = polls_needed
        self.submissions: list[str] = []  # prompts, in order
        self.keys: list[str] = []  # idempotency keys that came with them
        self.jobs: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.polls = self.look_ups = 0
        self.reply_delay_s = 0.0  # between taking a submission and answering it
        self.released = threading.Event()
        self.taken = threading.Event()
        self.clip = CLIP
        self.around_reply: Callable[[bool], None] | None = None  # called once: before the reply to a submission goes out, and when it has
        routes = [
            Route("/v1/videos", self._submit, methods=["POST"]),
            Route("/v1/videos", self._find, methods=["GET"]),
            Route("/v1/videos/{id}", self._poll, methods=["GET"]),
            Route("/v1/videos/{id}", self._delete, methods=["DELETE"]),
            Route("/v1/videos/{id}/content", self._content, methods=["GET"]),
        ]
        config = uvicorn.Config(Starlette(routes=routes), host="127.0.0.1", port=0, log_level="critical", access_log=False)
        self._server = uvicorn.Server(config)
        self._server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}/v1"

    def cut(self) -> None:
        """Connections of submissions that hang end without an answer."""
        for connection in list(self._server.server_state.connections):
            self._loop.call_soon_threadsafe(connection.transport.abort)

    def close(self) -> None:
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(5)

    async def _submit(self, request: Request) -> Response:
        body = await request.body()
        prompt = re.search(rb'name="prompt"\r\n\r\n(.*?)\r\n', body, re.S)[1].decode()
        if prompt.startswith("busy") and self.submissions.count(prompt) < 2:
            self.submissions.append(prompt)
            return JSONResponse({"error": {"message": "busy"}}, 503)
        if prompt.startswith("reject"):
            return JSONResponse({"error": {"message": "not with me", "type": "invalid_request_error"}}, 400)
        key = request.headers.get("idempotency-key", "")
        known = next((job for job in self.jobs.values() if key and job["key"] == key), None)
        self.keys.append(key)
        self.submissions.append(prompt)
        job = known or {"id": f"video_{len(self.jobs)}", "prompt": prompt, "polls": 0, "key": key, "status": "queued"}
        self.jobs[job["id"]] = job
        if prompt.startswith("at once"):
            return Response(self.clip, media_type="video/mp4")
        self._loop = asyncio.get_running_loop()
        self.taken.set()
        await asyncio.sleep(self.reply_delay_s)
        if prompt.startswith("hang"):
            await asyncio.sleep(3600)
        around, self.around_reply = self.around_reply, None
        if around is None:
            return JSONResponse(self._shown(job))
        around(False)
        asyncio.get_running_loop().call_later(0.05, around, True)
        return JSONResponse(self._shown(job))

    async def _find(self, request: Request) -> Response:
        """By the key of its submission; the first question is not answered."""
        self.look_ups += 1
        if self.look_ups == 1:
            return JSONResponse({"error": {"message": "busy"}}, 503)
        return JSONResponse({"data": [self._shown(job) for job in self.jobs.values() if job["key"] == request.query_params["key"]]})

    async def _poll(self, request: Request) -> Response:
        self.polls += 1
        job = self.jobs.get(request.path_params["id"])
        if job is None:
            return JSONResponse({"error": {"message": "no such video"}}, 410)
        job["polls"] += 1
        if job["status"] not in ("cancelled", "failed"):
            is_done = job["polls"] > self.polls_needed and (not job["prompt"].startswith("slow") or self.released.is_set())
            job["status"] = "completed" if is_done else "in_progress"
            if is_done and job["prompt"].startswith("fail"):
                job |= {"status": "failed", "error": {"code": "moderation_blocked", "message": "too rude"}}
        return JSONResponse(self._shown(job))

    async def _delete(self, request: Request) -> Response:
        job = self.jobs[request.path_params["id"]]
        self.deleted.append(job["id"])
        if job["status"] != "completed":
            job["status"] = "cancelled"
        return JSONResponse({"id": job["id"], "deleted": True})

    async def _content(self, request: Request) -> Response:
        return Response(self.clip, media_type="video/mp4")

    def _shown(self, job: dict[str, Any]) -> dict[str, Any]:
        return {"object": "video", "progress": 100 if job["status"] == "completed" else 40, "seconds": "4", **job}
