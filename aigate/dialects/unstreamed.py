"""What the formats share whose replies come whole, and which have nothing to lose: base of theirs. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from aigate.core.call import Call, Warning
from aigate.core.neutral import Reply, Request
from aigate.core.target import Target
from aigate.dialects import openai_errors
from aigate.dialects.dialect import OpenedReply, StreamReader, StreamWriter
from aigate.errors import ClientError


class Unstreamed:
    name = ""
    id_header = b""
    params: Mapping[str, str] = {}
    read_error = staticmethod(openai_errors.read_error)
    write_error = staticmethod(openai_errors.write_error)

    def lost(self, request: Request, target: Target) -> list[Warning]:
        return []

    def open_reply(self, body: bytes, target: Target) -> OpenedReply:
        raise AssertionError("a format opens its own replies")

    def read_reply(self, body: bytes, target: Target) -> Reply:
        return Reply("", 0, "", [], bags={self.name: self.open_reply(body, target).pairs or {}}, dialect=self.name)

    def stream_reader(self, target: Target, is_spliced: bool) -> StreamReader:
        raise ClientError(f"{self.name} is not streamed", param="stream")

    def stream_writer(self, call: Call, asked: str, reply_id: str) -> StreamWriter:
        raise ClientError(f"{self.name} is not streamed", param="stream")
