"""The Gemini dialect (generateContent): its parts assembled into the one object that surfaces and targets name. No logic of its own."""

from __future__ import annotations

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.dialects import gemini_errors, gemini_reply, gemini_request, gemini_request_writer
from aigate.dialects.gemini_parts import NAME
from aigate.dialects.gemini_reader import GeminiStreamReader
from aigate.dialects.gemini_writer import GeminiStreamWriter


class Gemini:
    """Keeps `Dialect` (dialects/dialect.py)."""

    name = NAME
    id_header = b""
    params = gemini_request.PARAMS

    read_call = staticmethod(gemini_request.read_call)
    read_request = staticmethod(gemini_request.read_request)
    lost = staticmethod(gemini_request_writer.lost)
    write_request = staticmethod(gemini_request_writer.write_request)
    edit_pairs = staticmethod(gemini_request.edit_pairs)

    read_reply = staticmethod(gemini_reply.read_reply)
    write_reply = staticmethod(gemini_reply.write_reply)
    splice_reply = staticmethod(gemini_reply.splice_reply)
    open_reply = staticmethod(gemini_reply.open_reply)

    read_error = staticmethod(gemini_errors.read_error)
    write_error = staticmethod(gemini_errors.write_error)

    @staticmethod
    def stream_reader(target: Target, is_spliced: bool) -> GeminiStreamReader:
        return GeminiStreamReader(target, is_spliced)

    @staticmethod
    def stream_writer(call: Call, asked: str, reply_id: str) -> GeminiStreamWriter:
        return GeminiStreamWriter(asked, reply_id, call.is_array)
