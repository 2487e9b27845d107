from __future__ import annotations

import json
import random

import pytest

from aigate.core.batch import LineError, call_id, call_id_range, is_worth_another_try, retry_delay_s
from aigate.core.batch_lines import BadLine, Cutter, InputCheck, Request, error_line, number_of, read_line, reply_line
from aigate.errors import ClientError

BATCH = "batch_0193a1b2c3d4aabbccddeeff"[:29]
CHAT = "/v1/chat/completions"


def line(**fields: object) -> bytes:
    return json.dumps({"custom_id": "a", "method": "POST", "url": CHAT, "body": {"model": "sim/echo"}, **fields}).encode()


def check(data: bytes, *, max_lines: int = 100, piece: int = 7) -> int:
    checking = InputCheck(max_lines, 1000)
    for start in range(0, len(data), piece):
        checking.feed(data[start : start + piece])
    checking.end()
    return checking.total


def test_lines_are_the_same_however_the_file_comes() -> None:
    source = random.Random(3)
    for _ in range(300):
        lines = [source.randbytes(source.choice((0, 1, 9, 10, 11, 40))).replace(b"\n", b"-") for _ in range(source.randrange(6))]
        data = b"\n".join(lines)
        cutter = Cutter(10)
        cut: list[bytes | None] = []
        start = 0
        while start < len(data):
            size = source.randrange(1, 12)
            cut += cutter.feed(data[start : start + size])
            start += size
        cut += cutter.end()
        whole = lines[:-1] if lines and not lines[-1] else lines
        assert cut == [None if len(each) > 10 else each for each in whole]


def test_a_line_is_a_request_with_its_body_untouched() -> None:
    found = read_line(b'{"url": "/v1/embeddings", "custom_id": "\xc3\xa4", "more": 1, "body": {"a" : 1.50}}', 3, "/v1/embeddings")
    assert found == Request("ä", b'{"a" : 1.50}')


@pytest.mark.parametrize(
    ("bad", "custom_id", "code", "words"),
    [
        (b"{", None, "invalid_json_line", "Line 7 is not valid JSON"),
        (b"\xff\xfe", None, "invalid_json_line", "not valid JSON"),
        (b"[1]", None, "invalid_request", "Expected `object`"),
        (b"{}", None, "invalid_request", "missing required field `custom_id`"),
        (line(custom_id=5), None, "invalid_request", "Expected `str`, got `int` - at `custom_id`"),
        (b'{"custom_id": "a", "url": "/v1/chat/completions"}', "a", "invalid_request", "missing required field `body`"),
        (line(custom_id=""), "", "invalid_request", "custom_id: must have 1 to 512"),
        (line(custom_id="x" * 513), "x" * 513, "invalid_request", "custom_id: must have 1 to 512"),
        (line(method="GET"), "a", "invalid_request", "method: must be POST, got 'GET'"),
        (line(url="/v1/embeddings"), "a", "invalid_request", "url: must be the batch's endpoint, /v1/chat/completions, got '/v1/embeddings'"),
        (line(body="text"), "a", "invalid_request", "body: must be a JSON object"),
        (line(body={"stream": True}), "a", "invalid_request", "body.stream: a batch's answers are not streamed"),
        (line(body={"background": True}), "a", "invalid_request", "body.background: a batch waits for its answers itself"),
        (b'{"custom_id": "a", "body": ' + b"[" * 100_000, None, "invalid_json_line", "not valid JSON"),
        (None, None, "line_too_long", "Line 7 is longer"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(bad: bytes | None, custom_id: str | None, code: str, words: str) -> None:
    found = read_line(bad, 7, CHAT)
    assert isinstance(found, BadLine)
    assert (found.custom_id, found.error.code, found.error.line) == (custom_id, code, 7)
    assert words in found.error.message


def test_a_stream_that_is_not_asked_for_is_no_mistake() -> None:
    assert isinstance(read_line(line(body={"stream": False, "x": "stream"}), 1, CHAT), Request)


def test_an_input_is_counted_without_its_blank_lines() -> None:
    assert check(line(custom_id="1") + b"\n\n  \r\n" + line(custom_id="2") + b"\nno json\n\n") == 3


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty_file", "has no lines"),
        (b"\n \n", "empty_file", "has no lines"),
        (b"\n".join([line(custom_id="x"), line(custom_id="y"), b"", line(custom_id="x")]), "duplicate_custom_id", "the custom_id 'x' of line 4 is that of line 1"),
        (b"1\n2\n3\n4\n", "too_many_lines", "more than 3 lines"),
    ],
)
def test_an_input_that_no_batch_can_be_made_of_is_refused(data: bytes, code: str, words: str) -> None:
    with pytest.raises(ClientError, match=words) as refused:
        check(data, max_lines=3)
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, code, "input_file_id")


def test_a_written_line_is_one_line_that_knows_its_number() -> None:
    written = reply_line(BATCH, 300, 'a"b', 200, "req_1", b'{\n "x": "y\\n",\r\n "z": 1}')
    read = json.loads(written)
    assert written.count(b"\n") == 1 and number_of(written, BATCH) == 300
    assert read == {
        "id": f"batch_req_{BATCH[6:]}00012c",
        "custom_id": 'a"b',
        "response": {"status_code": 200, "request_id": "req_1", "body": {"x": "y\n", "z": 1}},
        "error": None,
    }
    written = error_line(BATCH, 2, None, LineError("invalid_json_line", "Line 2", 2))
    assert number_of(written, BATCH) == 2
    assert json.loads(written)["error"] == {"code": "invalid_json_line", "message": "Line 2", "line": 2, "param": None}
    assert json.loads(reply_line(BATCH, 1, "a", 502, "req_1", b"<html>\n"))["response"]["body"] == "<html>\n"


def test_a_line_that_is_not_whole_has_no_number() -> None:
    written = reply_line(BATCH, 300, "a", 200, "req_1", b"{}")
    assert all(number_of(written[:end], BATCH) is None for end in range(len(written)))
    assert number_of(written, "batch_other") is None


def test_call_ids_are_the_batchs_own() -> None:
    first, end = call_id_range(BATCH)
    ids = [call_id(BATCH, number, tries) for number in (1, 255, 999_999) for tries in (0, 7)]
    assert len(set(ids)) == 6 and all(first < each < end for each in ids)


def test_which_lines_are_tried_again_and_when() -> None:
    assert [status for status in (200, 400, 402, 404, 408, 429, 500, 503, 529) if is_worth_another_try(status, 1)] == [408, 429, 500, 503, 529]
    assert not is_worth_another_try(503, 8)
    assert is_worth_another_try(402, 1, is_held=True) and not is_worth_another_try(402, 4, is_held=True)
    assert [retry_delay_s(tries, None, 0.5) for tries in range(1, 8)] == [2, 6, 18, 54, 162, 300, 300]
    assert retry_delay_s(1, 30.0, 0.5) == 30 and retry_delay_s(1, 9999.0, 0.0) == 300
