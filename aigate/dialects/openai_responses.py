"""The OpenAI Responses dialect: its parts assembled into the one object that surfaces and targets name. No logic of its own.

Towards providers it is stateless: every call brings its whole conversation.
"""

from __future__ import annotations

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects import openai_errors, openai_responses_reply, openai_responses_request
from aigate.dialects.openai_responses_items import NAME
from aigate.dialects.openai_responses_reader import ResponsesStreamReader
from aigate.dialects.openai_responses_writer import ResponsesStreamWriter


class OpenAIResponses:
    """Keeps `Dialect` (dialects/dialect.py)."""

    name = NAME
    id_header = b""
    params = openai_responses_request.PARAMS

    read_call = staticmethod(openai_responses_request.read_call)
    read_request = staticmethod(openai_responses_request.read_request)
    write_request = staticmethod(openai_responses_request.write_request)
    edit_pairs = staticmethod(openai_responses_request.edit_pairs)
    lost = staticmethod(openai_responses_request.lost)

    read_reply = staticmethod(openai_responses_reply.read_reply)
    write_reply = staticmethod(openai_responses_reply.write_reply)
    splice_reply = staticmethod(openai_responses_reply.splice_reply)
    open_reply = staticmethod(openai_responses_reply.open_reply)

    read_error = staticmethod(openai_errors.read_error)
    write_error = staticmethod(openai_errors.write_error)

    @staticmethod
    def stream_reader(target: Target, is_spliced: bool) -> ResponsesStreamReader:
        return ResponsesStreamReader(target, is_spliced)

    @staticmethod
    def stream_writer(call: Call, asked: str, reply_id: str) -> ResponsesStreamWriter:
        return ResponsesStreamWriter(call, asked, reply_id)
