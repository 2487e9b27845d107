"""What all families share: replies read as JSON, failures told in one way, pictures and forms written, and what a family lacks. Pure.

A family's module holds only what its provider alone does. Nothing here knows a provider.
"""

from __future__ import annotations

import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Iterable, Mapping
from hashlib import sha256
from math import isfinite
from typing import Any
from urllib.parse import quote

import msgspec

from aigate.core.job import JobRequest
from aigate.core.target import Target
from aigate.dialects.openai_errors import read_error
from aigate.errors import ClientError, ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest, JobFailure, Polled, Result, Submitted

MAX_RESULTS = 8  # files of one job
MAX_TEXT = 2000
JSON = "application/json"

_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+-]+/[a-zA-Z0-9.+-]+)(?:;[^,;]*)*?;base64,", re.ASCII)
_URL = re.compile(r"https?://[!-~]+|/(?!/)[!-~]*")
_SUFFIX = {"video": "mp4", "music": "mp3", "3d": "glb"}


class Family:
    """Base of the families: hardly one makes a submission idempotent, and none can be asked for a job by our key, so far."""

    name = ""
    has_idempotency_key = False
    can_look_up = False
    takes_webhook = False

    def write_look_up(self, key: str, target: Target) -> HttpRequest:
        raise LookupError(f"{self.name} cannot be asked for a job by a key")

    def read_look_up(self, reply: HttpReply, key: str, target: Target) -> Submitted | None:
        raise LookupError(f"{self.name} cannot be asked for a job by a key")

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        return None


class Resource(Family):
    """Base of those who show a job at `path`/{id}, and answer a submission with the same object."""

    path = ""

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        job = read_object(reply)
        handle = required(job.get("id"), reply, "id")
        return Submitted(handle=handle, polled=self._read_job(job, reply, handle, target))

    def write_poll(self, handle: str, target: Target) -> HttpRequest:
        return HttpRequest(url=f"{self.path}/{segment(handle)}")

    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Polled:
        return self._read_job(read_object(reply), reply, handle, target)

    def _read_job(self, job: dict[str, Any], reply: HttpReply, handle: str, target: Target) -> Polled:
        raise LookupError(f"{self.name} does not say where a job stands")


class Synchronous(Family):
    """Base of those whose submission is answered with the media itself: there is nothing to poll."""

    def write_poll(self, handle: str, target: Target) -> HttpRequest:
        raise LookupError(f"{self.name} answers at once and is never polled")

    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Any:
        raise LookupError(f"{self.name} answers at once and is never polled")


# --- writing ------------------------------------------------------------------------------------------------------------------


def post_json(url: str, body: Mapping[str, object]) -> HttpRequest:
    return HttpRequest(method="POST", url=url, headers={"content-type": JSON}, body=msgspec.json.encode(body))


def said(**fields: object) -> dict[str, object]:
    """Without those that nobody said."""
    return {name: value for name, value in fields.items() if value is not None}


def segment(text: str) -> str:
    """As one piece of a path, whatever is in it."""
    return quote(text, safe="")


def whole(seconds: float | None) -> int | None:
    """A duration for providers that count in whole seconds (rows say so, and the plan has rounded it): never more than is paid for."""
    return None if seconds is None else max(1, int(seconds))


def decode_picture(url: str) -> tuple[str, bytes]:
    """(media type, bytes) of a data: URL."""
    match = _DATA_URL.match(url)
    if match is None:
        raise ClientError("image_url: this provider takes the picture itself: give it as data:image/png;base64,…", param="image_url")
    try:
        return match[1].lower(), b64decode(url[match.end() :], validate=True)
    except (Base64Error, ValueError):
        raise ClientError("image_url: what follows base64, is not base64", param="image_url") from None


def multipart(url: str, fields: Mapping[str, object], files: Mapping[str, tuple[str, bytes]], key: str) -> HttpRequest:
    """A form; `files`: name → (media type, bytes). Its boundary comes of the job's own key, which nobody can have written into a field."""
    boundary = "aig-" + sha256(key.encode()).hexdigest()
    parts: list[bytes] = []
    for name, value in fields.items():
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        parts.append(f'--{boundary}\r\ncontent-disposition: form-data; name="{_form_name(name)}"\r\n\r\n'.encode() + text.encode("utf-8", "replace"))
    for name, (media_type, data) in files.items():
        filename = f"{name}.{media_type.rpartition('/')[2]}"
        disposition = f'content-disposition: form-data; name="{_form_name(name)}"; filename="{filename}"\r\ncontent-type: {media_type}\r\n\r\n'
        parts.append(f"--{boundary}\r\n{disposition}".encode() + data)
    body = b"".join(part + b"\r\n" for part in parts) + f"--{boundary}--\r\n".encode()
    return HttpRequest(method="POST", url=url, headers={"content-type": f"multipart/form-data; boundary={boundary}"}, body=body)


def _form_name(name: str) -> str:
    return name.replace("%", "%25").replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


# --- reading ------------------------------------------------------------------------------------------------------------------


def read_object(reply: HttpReply) -> dict[str, Any]:
    """The JSON object of a good reply. Raises ProviderError: what the provider refused with, or bad_reply."""
    if reply.status >= 400:
        raise read_error(reply.status, _as_bytes(reply.headers), reply.body)
    if not 200 <= reply.status < 300:
        raise bad_reply(reply, f"status {reply.status}")
    value = read_json(reply)
    if type(value) is not dict:
        raise bad_reply(reply, "no JSON object")
    return value


def read_json(reply: HttpReply) -> Any:
    """Whatever JSON there is; None where there is none."""
    try:
        return msgspec.json.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def check_media(reply: HttpReply) -> None:
    """For submissions that are answered with the media. A JSON body under a good status is no media."""
    if reply.status >= 400:
        raise read_error(reply.status, _as_bytes(reply.headers), reply.body)
    if not 200 <= reply.status < 300 or reply.body:
        raise bad_reply(reply, "no media")


def bad_reply(reply: HttpReply, what: str) -> ProviderError:
    return ProviderError(f"the provider's reply cannot be read: {what}", kind="bad_reply", provider_status=reply.status)


def required(value: object, reply: HttpReply, what: str) -> str:
    """A text that a reply cannot do without, such as the id of what was submitted."""
    if isinstance(value, str) and 0 < len(value) <= MAX_TEXT and value.isprintable():
        return value
    if type(value) is int:
        return str(value)
    raise bad_reply(reply, f"no {what}")


def state_of(word: object, states: Mapping[str, str], reply: HttpReply) -> str:
    """Ours, for the provider's word."""
    state = states.get(text_of(word))
    if state is None:
        raise bad_reply(reply, "no status")
    return state


def dig(value: object, *path: str | int) -> Any:
    """What is at `path` of decoded JSON; None where there is nothing of the kind."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if type(value) is dict else None
        else:
            value = value[step] if type(value) is list and len(value) > step else None
    return value


def text_of(value: object) -> str:
    return value[:MAX_TEXT] if isinstance(value, str) else ""


def number_of(value: object) -> float | None:
    """A number, also one written as text; nothing that is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if isfinite(number) else None


def fraction(value: object, of: float = 1.0) -> float | None:
    """Progress as 0 … 1."""
    number = number_of(value)
    return None if number is None else min(max(number / of, 0.0), 1.0)


def failure(message: object, code: str = "provider_failed") -> JobFailure:
    return JobFailure(message=text_of(message) or "the provider gave no reason", code=code)


def rejection(message: object, word: object, marks: Iterable[str]) -> JobFailure:
    """A failure that is the content's fault where the provider's own word for it says so."""
    said_word = text_of(word).lower()
    return failure(message, "content_rejected" if any(mark in said_word for mark in marks) else "provider_failed")


def result_at(url: object, modality: str, media_type: object = "", **facts: Any) -> Result | None:
    """The file at a URL that a provider names: absolute, a path of its own, or the file itself as data:."""
    if not isinstance(url, str):
        return None
    media_type, filename = text_of(media_type)[:100], f"{modality}.{_SUFFIX[modality]}"
    if url.startswith("data:"):
        try:
            told, data = decode_picture(url)
        except ClientError:
            return None
        return Result(data=data, media_type=media_type or told, filename="", **facts)
    if len(url) > 8192 or not _URL.fullmatch(url):
        return None
    return Result(request=HttpRequest(url=url, is_media=True), media_type=media_type, filename=filename if not media_type else "", **facts)


def decoded(value: object) -> bytes:
    """Base64 in a reply; b"" for what is none."""
    if not isinstance(value, str):
        return b""
    try:
        return b64decode(value, validate=True)
    except (Base64Error, ValueError):
        return b""


def _as_bytes(headers: Mapping[str, str]) -> dict[bytes, bytes]:
    return {name.encode("latin-1", "replace"): value.encode("latin-1", "replace") for name, value in headers.items()}
