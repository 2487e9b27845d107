"""The CLI's way to a running server: which one, with which key, and one request at a time. Knows no command."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from aigate.config import Config, find_file, load

PIECE_BYTES = 256 << 10
TIMEOUT_S = 600.0  # silence; a model may think for minutes before its first word

_NOT_OURS = "what answers there is not aigate"


class CommandError(Exception):
    """A command failed: the message is the one line its user sees."""


class Server:
    """A server and the key to use there."""

    def __init__(self, url: str, key: str):
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            port = parts.port
        except ValueError as error:
            raise CommandError(f"--url {url!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandError(f"--url {url!r}: expected http://HOST:PORT")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._key = key
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, port, timeout=TIMEOUT_S)

    def request(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
        with self._foreign_errors():
            return json.loads(self._open(method, path, body, headers).read())

    def stream(self, path: str, body: object) -> Iterator[dict[str, Any]]:
        """The data events of an SSE reply."""
        with self._foreign_errors():
            for line in self._open("POST", path, body):
                data = line.removeprefix(b"data:").strip()
                if line.startswith(b"data:") and data != b"[DONE]":
                    yield json.loads(data)

    def upload(self, path: str, fields: Mapping[str, str], name: str, file: BinaryIO) -> dict[str, Any]:
        """A form with one file, streamed: of any size."""
        boundary = secrets.token_hex(16)
        parts = [f'--{boundary}\r\ncontent-disposition: form-data; name="{field}"\r\n\r\n{value}\r\n' for field, value in fields.items()]
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        parts.append(f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{quoted}"\r\n\r\n')
        pieces = itertools.chain(["".join(parts).encode()], iter(lambda: file.read(PIECE_BYTES), b""), [f"\r\n--{boundary}--\r\n".encode()])
        headers = {"authorization": f"Bearer {self._key}", "content-type": f"multipart/form-data; boundary={boundary}"}
        with self._foreign_errors():
            self._connection.request("POST", path, pieces, headers, encode_chunked=True)
            return json.loads(self._answer().read())

    def read(self, path: str) -> Iterator[bytes]:
        with self._foreign_errors():
            reply = self._open("GET", path, None)
            while piece := reply.read(PIECE_BYTES):
                yield piece

    def download(self, path: str, to: Path) -> None:
        """The bytes of a reply, whole or not at all."""
        draft = to.with_name(to.name + ".part")
        with self._foreign_errors():
            reply = self._open("GET", path, None)
            try:
                with draft.open("wb") as file:
                    while piece := reply.read(PIECE_BYTES):
                        file.write(piece)
                draft.replace(to)
            except OSError:
                draft.unlink(missing_ok=True)
                raise

    def _open(self, method: str, path: str, body: object, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        sent = {"authorization": f"Bearer {self._key}", "content-type": "application/json", **(headers or {})}
        self._connection.request(method, path, None if body is None else json.dumps(body), sent)
        return self._answer()

    def _answer(self) -> http.client.HTTPResponse:
        reply = self._connection.getresponse()
        if reply.status < 400 and reply.getheader("x-request-id") is None:  # every reply of ours has one
            raise CommandError(f"{self.url}: {_NOT_OURS}")
        if reply.status >= 400:
            raise CommandError(f"{reply.status}: {_message(reply.read())}")
        return reply

    @contextlib.contextmanager
    def _foreign_errors(self) -> Iterator[None]:
        try:
            yield
        except ConnectionRefusedError:
            raise CommandError(f"no server answers at {self.url}; start one with 'aigate serve', or name another with --url") from None
        except json.JSONDecodeError:
            raise CommandError(f"{self.url}: {_NOT_OURS}") from None
        except UnicodeEncodeError:
            raise CommandError("the key has a character that cannot be sent") from None
        except (OSError, http.client.HTTPException) as error:
            raise CommandError(f"{self.url}: {error or type(error).__name__}") from error


def _message(body: bytes) -> str:
    """The words of an error envelope; whatever came, where it is not one (a proxy in between)."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return body[:300].decode("utf-8", "replace").strip()


def read_settings(config_file: str | None, data_dir: str | None = None) -> Config:
    overrides = {"server.data_dir": data_dir} if data_dir else {}
    return load(find_file(config_file, os.environ), os.environ, overrides)


def find_server(url: str | None, key: str | None, config_file: str | None, data_dir: str | None) -> Server:
    """What is not given comes from the settings that `aigate serve` would use here."""
    config = None if url and key else read_settings(config_file, data_dir)
    if not url:
        assert config
        url = _running_url(config) or config.server.url
    return Server(url, key or _root_key(config))


def _running_url(config: Config) -> str:
    """Where the server of the data directory says it is; "" where none runs."""
    try:
        return (Path(config.server.data_dir) / "run" / "url").read_text().strip()
    except OSError:
        return ""


def _root_key(config: Config | None) -> str:
    assert config
    if config.auth.admin_key:
        return config.auth.admin_key
    path = Path(config.server.data_dir) / "admin.key"
    try:
        return path.read_text().strip()
    except OSError as error:
        raise CommandError(f"no key: {path}: {error.strerror}; give --key, or --data-dir of the server") from None
