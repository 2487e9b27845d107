"""The Anthropic Messages dialect: its parts assembled into the one object that surfaces and targets name. No logic of its own."""

from __future__ import annotations

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects import anthropic_errors, anthropic_reply, anthropic_request, anthropic_upstream
from aigate.dialects.anthropic_message import NAME
from aigate.dialects.anthropic_reader import AnthropicStreamReader
from aigate.dialects.anthropic_writer import AnthropicStreamWriter


class AnthropicMessages:
    """Keeps `Dialect` (dialects/dialect.py)."""

    name = NAME
    id_header = b"request-id"
    params = anthropic_request.PARAMS

    read_call = staticmethod(anthropic_request.read_call)
    read_request = staticmethod(anthropic_request.read_request)
    edit_pairs = staticmethod(anthropic_request.edit_pairs)
    lost = staticmethod(anthropic_upstream.lost)
    write_request = staticmethod(anthropic_upstream.write_request)

    read_reply = staticmethod(anthropic_reply.read_reply)
    write_reply = staticmethod(anthropic_reply.write_reply)
    splice_reply = staticmethod(anthropic_reply.splice_reply)
    open_reply = staticmethod(anthropic_reply.open_reply)

    read_error = staticmethod(anthropic_errors.read_error)
    write_error = staticmethod(anthropic_errors.write_error)

    @staticmethod
    def stream_reader(target: Target, is_spliced: bool) -> AnthropicStreamReader:
        return AnthropicStreamReader(target, is_spliced)

    @staticmethod
    def stream_writer(call: Call, asked: str, reply_id: str) -> AnthropicStreamWriter:
        return AnthropicStreamWriter(asked, reply_id)
