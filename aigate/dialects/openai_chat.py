"""The OpenAI chat dialect: its parts assembled into the one object that surfaces and targets name. No logic of its own."""

from __future__ import annotations

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects import openai_chat_reply, openai_chat_request, openai_errors
from aigate.dialects.openai_chat_message import NAME
from aigate.dialects.openai_chat_reader import ChatStreamReader
from aigate.dialects.openai_chat_writer import ChatStreamWriter


class OpenAIChat:
    """Keeps `Dialect` (dialects/dialect.py)."""

    name = NAME
    params = openai_chat_request.PARAMS

    read_call = staticmethod(openai_chat_request.read_call)
    read_request = staticmethod(openai_chat_request.read_request)
    write_request = staticmethod(openai_chat_request.write_request)
    edit_pairs = staticmethod(openai_chat_request.edit_pairs)

    read_reply = staticmethod(openai_chat_reply.read_reply)
    write_reply = staticmethod(openai_chat_reply.write_reply)
    splice_reply = staticmethod(openai_chat_reply.splice_reply)
    open_reply = staticmethod(openai_chat_reply.open_reply)

    read_error = staticmethod(openai_errors.read_error)
    write_error = staticmethod(openai_errors.write_error)

    @staticmethod
    def stream_reader(target: Target, is_spliced: bool) -> ChatStreamReader:
        return ChatStreamReader(target, is_spliced)

    @staticmethod
    def stream_writer(call: Call, asked: str, reply_id: str) -> ChatStreamWriter:
        return ChatStreamWriter(asked, reply_id, call.include_usage)
