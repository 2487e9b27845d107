"""Whether the keeper still answers, asked over its socket without ever waiting for it. Used by the supervisor's loop."""

from __future__ import annotations

import selectors
import socket
import time
from pathlib import Path

# Nothing is served there: the 404 says that the keeper is alive, whatever state its database is in.
_QUESTION = b"GET /alive HTTP/1.1\r\nhost: keeper\r\nconnection: close\r\n\r\n"


class Probe:
    """`heard_at`: monotonic time of its last word."""

    def __init__(self, path: Path, selector: selectors.BaseSelector):
        self.heard_at = 0.0
        self._path = str(path)
        self._selector = selector
        self._asked: socket.socket | None = None

    def ask(self) -> None:
        self.forget()
        asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        asked.setblocking(False)
        try:
            asked.connect(self._path)
            asked.send(_QUESTION)
        except OSError:  # no answer is all that there is to know
            asked.close()
            return
        self._asked = asked
        self._selector.register(asked, selectors.EVENT_READ, self._hear)

    def forget(self) -> None:
        if self._asked is not None:
            self._selector.unregister(self._asked)
            self._asked.close()
            self._asked = None

    def _hear(self) -> None:
        assert self._asked is not None
        try:
            if self._asked.recv(1):
                self.heard_at = time.monotonic()
        except OSError:  # it has just died: its exit says so
            pass
        self.forget()
