"""The simulated provider over real connections: endpoints, behaviours, and the bill they leave."""

import gzip
import json
import socket
import threading
import time

import openai
import pytest

ASK_USAGE = {"stream": True, "stream_options": {"include_usage": True}}


def wait_until(condition, seconds=10.0):
    """Polls; True as soon as the condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the awaited never came"
        threading.Event().wait(0.005)


def raw_request(model, text="hello", attempt="att_raw", **fields):
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": text}], **fields}).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-aig-attempt: %b\r\ncontent-length: %d\r\n\r\n%b" % (
        attempt.encode(), len(body), body,
    )  # fmt: skip


def read_until(sock, mark):
    data = b""
    while mark not in data:
        got = sock.recv(1 << 16)
        assert got, f"ended before {mark!r}: {data!r}"
        data += got
    return data


def read_to_end(sock):
    data = b""
    while got := sock.recv(1 << 16):
        data += got
    return data


# --- answers


def test_a_plain_reply_reports_what_the_bill_says(sim):
    answer = sim.chat("echo", "how are you?")
    usage, row = answer.json()["usage"], sim.billed(answer.attempt)
    assert answer.json()["choices"][0]["message"]["content"].startswith("This is aigate's built-in simulated model")
    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (row["prompt_tokens"], row["completion_tokens"])
    assert (row["end"], row["status"], row["model"]) == ("complete", 200, "echo")


def test_a_stream_says_the_same_as_the_plain_reply_one_token_a_chunk(sim):
    plain = sim.chat("echo", seed=3).json()
    streamed = sim.chat("echo", seed=3, **ASK_USAGE)
    chunks = streamed.chunks()
    assert streamed.text() == plain["choices"][0]["message"]["content"]
    assert chunks[-1]["choices"] == [] and chunks[-1]["usage"] == plain["usage"]
    assert sum(1 for chunk in chunks if chunk["choices"] and chunk["choices"][0]["delta"].get("content")) == plain["usage"]["completion_tokens"]
    assert streamed.body.endswith(b"data: [DONE]\n\n")


def test_the_sdk_understands_it(sim):
    client = openai.OpenAI(base_url=sim.base_url, api_key="none", max_retries=0)
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {"type": "string"}}}}}]
    stream = client.chat.completions.create(
        model="tools+reasoning", messages=[{"role": "user", "content": "look"}], tools=tools, stream=True, stream_options={"include_usage": True}
    )
    name = arguments = reasoning = ""
    for chunk in stream:
        for choice in chunk.choices:
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            for call in choice.delta.tool_calls or ():
                name += call.function.name or ""
                arguments += call.function.arguments
    assert (name, json.loads(arguments)) == ("look", {"at": "sim"})
    assert chunk.usage.completion_tokens_details.reasoning_tokens == 24 == len(reasoning.split())
    vectors = client.embeddings.create(model="embed", input=["a b", "c"], dimensions=8)
    assert len(vectors.data) == 2 and len(vectors.data[0].embedding) == 8 and vectors.usage.prompt_tokens == 3
    assert "echo" in [model.id for model in client.models.list()]
    client.close()


def test_choices_are_streamed_side_by_side(sim):
    plain = sim.chat("echo", n=2).json()
    chunks = sim.chat("echo", n=2, stream=True).chunks()
    for index in (0, 1):
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert "".join(choice["delta"].get("content", "") for choice in mine) == plain["choices"][index]["message"]["content"]
        assert mine[-1]["finish_reason"] == "stop"


def test_tokens_of_embeddings_and_their_encodings(sim):
    def embed(**fields):
        return json.loads(sim.request("POST", "/v1/embeddings", json.dumps({"model": "embed", "dimensions": 4, **fields}))[2])

    as_floats, as_base64 = embed(input="x"), embed(input="x", encoding_format="base64")
    assert len(as_floats["data"][0]["embedding"]) == 4 and isinstance(as_base64["data"][0]["embedding"], str)
    assert embed(input=[1, 2, 3])["usage"]["prompt_tokens"] == 3
    assert embed(input=[[1, 2], [3]])["usage"]["prompt_tokens"] == 3


# --- where usage is


def usage_places(chunks):
    return [at for at, chunk in enumerate(chunks) if chunk.get("usage")]


def test_usage_places(sim):
    def chunks(model, **fields):
        return sim.chat(model + "+long-5", stream=True, **fields).chunks()

    assert usage_places(chunks("echo")) == []
    assert usage_places(chunks("no-usage", stream_options={"include_usage": True})) == []
    assert "usage" not in sim.chat("no-usage").json()
    assert usage_places(chunks("usage-first")) == [0]
    finish = chunks("usage-finish")
    assert usage_places(finish) == [len(finish) - 1] and finish[-1]["choices"][0]["finish_reason"] == "stop"
    every = chunks("usage-every")
    assert [chunk["usage"]["completion_tokens"] for chunk in every] == [0, 1, 2, 3, 4, 5, 5]
    groq = chunks("usage-groq")
    assert groq[-1]["x_groq"]["usage"]["completion_tokens"] == 5 and groq[-1]["choices"][0]["finish_reason"]
    choices = chunks("usage-choices")
    assert choices[-2]["choices"][0]["usage"] == choices[-1]["usage"] and choices[-1]["choices"] == []


@pytest.mark.parametrize("place", ["finish", "groq", "choices"])
def test_usage_on_the_finish_chunk_comes_once_for_many_choices(sim, place):
    body = sim.chat(f"usage-{place}+long-5", n=3, stream=True).body
    assert body.count(b'"total_tokens"') == (2 if place == "choices" else 1)


# --- failures


@pytest.mark.parametrize("status", [400, 401, 402, 404, 429, 500, 503, 529])
def test_a_status_is_answered_and_costs_nothing(sim, status):
    answer = sim.chat(str(status), stream=True)
    assert answer.status == status and answer.json()["error"]["message"]
    assert answer.headers.get("retry-after") == ("1" if status in (429, 503) else None)
    row = sim.billed(answer.attempt)
    assert (row["end"], row["status"], row["cost_nanousd"]) == ("failed", status, 0)


def test_it_fails_so_many_times_for_one_prompt_and_then_answers(sim):
    assert [sim.chat("429-then-ok-2", "first").status for _ in range(4)] == [429, 429, 200, 200]
    assert sim.chat("429-then-ok-2", "second").status == 429


def test_retry_after_can_be_chosen(sim):
    assert sim.chat("503+retry-after-7").headers["retry-after"] == "7"


def test_html_garbage_and_wrong_type(sim):
    page = sim.chat("html-502")
    assert (page.status, page.headers["content-type"]) == (502, "text/html") and b"<html>" in page.body
    with pytest.raises(json.JSONDecodeError):
        sim.chat("garbage").json()
    assert b'"cont\n\n' in sim.chat("garbage", stream=True).body
    assert sim.chat("wrong-type").headers["content-type"] == "text/plain"
    assert sim.chat("wrong-type", stream=True).headers["content-type"] == "text/plain"


@pytest.mark.parametrize("tokens", [0, 5])
def test_a_cut_stream_ends_after_so_many_tokens_and_bills_them(sim, tokens):
    sock = socket.create_connection(("127.0.0.1", sim.port), timeout=10)
    sock.sendall(raw_request(f"cut-{tokens}", attempt=f"att_cut_{tokens}", stream=True))
    data = read_to_end(sock)
    sock.close()
    assert data.startswith(b"HTTP/1.1 200") and not data.endswith(b"0\r\n\r\n")
    assert data.count(b'"delta":{"content":') == tokens
    row = sim.billed(f"att_cut_{tokens}")
    assert (row["end"], row["completion_tokens"]) == ("cut", tokens)


def test_a_cut_plain_reply_is_unfinished(sim):
    answer = sim.chat("cut-5")
    assert not answer.is_whole and answer.body
    assert sim.billed(answer.attempt)["end"] == "cut"


@pytest.mark.parametrize("model", ["cut-head", "reset-head"])
def test_the_head_may_never_come(sim, model):
    sock = socket.create_connection(("127.0.0.1", sim.port), timeout=10)
    sock.sendall(raw_request(model, attempt="att_" + model))
    if model == "reset-head":
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    else:
        assert sock.recv(1) == b""
    sock.close()
    assert sim.billed("att_" + model)["completion_tokens"] == 0


def test_an_error_in_mid_stream(sim):
    answer = sim.chat("error-midstream-2", stream=True)
    assert answer.is_whole and "error" in answer.chunks()[-1] and b"[DONE]" not in answer.body
    assert sim.billed(answer.attempt)["end"] == "failed"


# --- time, and clients that leave


def leave_after(sim, model, mark, attempt, **fields):
    """Connects, reads until `mark` (b"": reads nothing) and leaves; the row the sim then has."""
    sock = socket.create_connection(("127.0.0.1", sim.port), timeout=10)
    sock.sendall(raw_request(model, attempt=attempt, **fields))
    if mark:
        read_until(sock, mark)
    else:
        wait_until(lambda: attempt in sim.get("/sim/attempts")["attempts"])
    sock.close()
    wait_until(lambda: sim.billed(attempt)["end"] != "open")
    return sim.billed(attempt)


def test_a_stream_its_reader_left_is_billed_for_what_was_sent(sim):
    row = leave_after(sim, "slow-20ms+long-500", b'" is"', "att_left", stream=True)
    assert row["end"] == "cancelled" and 2 <= row["completion_tokens"] < 100


def test_or_whole_where_the_provider_bills_all(sim):
    row = leave_after(sim, "slow-20ms+long-500+bills-all", b'" is"', "att_left_all", stream=True)
    assert (row["end"], row["completion_tokens"]) == ("cancelled", 500)


def test_a_plain_call_its_client_left_is_billed_whole(sim):
    row = leave_after(sim, "ttft-60s+long-9", b"", "att_left_plain")
    assert (row["end"], row["completion_tokens"]) == ("cancelled", 9)


def test_hang_sends_nothing_and_stall_sends_some(sim):
    assert leave_after(sim, "hang", b"", "att_hang", stream=True)["completion_tokens"] == 0
    row = leave_after(sim, "stall-2", b'" is"', "att_stall", stream=True)
    assert (row["end"], row["completion_tokens"]) == ("cancelled", 2)


def test_slow_waits_between_chunks(sim):
    started = time.monotonic()
    assert sim.chat("slow-10ms+long-10", stream=True).is_whole
    assert time.monotonic() - started >= 0.1


# --- odd bytes


def test_framings(sim):
    plain = sim.chat("echo", "odd", seed=1).json()["choices"][0]["message"]["content"]
    for part in ("crlf", "one-byte", "close-delimited"):
        assert sim.chat(f"{part}+echo", "odd", seed=1).json()["choices"][0]["message"]["content"] == plain
        assert sim.chat(f"{part}+echo", "odd", seed=1, stream=True).text() == plain
    assert b"\r\n\r\n" in sim.chat("crlf", stream=True).body
    assert b"[DONE]" not in sim.chat("no-done", stream=True).body


@pytest.mark.parametrize("is_stream", [False, True])
def test_gzip(sim, is_stream):
    answer = sim.chat("gzip+long-200", stream=is_stream)
    assert answer.headers["content-encoding"] == "gzip"
    text = gzip.decompress(answer.body)
    assert text.endswith(b"data: [DONE]\n\n") if is_stream else json.loads(text)["usage"]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_big_reply_is_valid_and_its_length_true(sim, is_stream):
    answer = sim.chat("big-1MB", stream=is_stream)
    text = answer.text() if is_stream else answer.json()["choices"][0]["message"]["content"]
    assert answer.is_whole and text.endswith("x" * (1 << 20))


def test_a_103_and_bytes_after_the_end(sim):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=10) as sock:
        sock.sendall(raw_request("early-103+extra-bytes"))
        data = read_until(sock, b"\r\n\r\nextra")
    assert data.startswith(b"HTTP/1.1 103 ") and data.count(b"HTTP/1.1 200 OK") == 2


def test_a_reader_that_takes_nothing_pauses_the_answer(sim):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=10) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.sendall(raw_request("long-1000000", attempt="att_slow_reader", stream=True))
        read_until(sock, b'" is"')
    wait_until(lambda: sim.billed("att_slow_reader")["end"] != "open")
    row = sim.billed("att_slow_reader")
    assert row["end"] == "cancelled" and row["completion_tokens"] < 500_000


# --- HTTP and bad requests


def test_pipelined_requests_are_answered_in_order(sim):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=10) as sock:
        sock.sendall(raw_request("ttft-20ms", "one") + raw_request("echo", "two") + raw_request("429") + b"GET /nothing HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        data = read_to_end(sock)
    marks = [data.index(mark) for mark in (b"You said: one", b"You said: two", b"HTTP/1.1 429", b"HTTP/1.1 404")]
    assert marks == sorted(marks)


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b'{"model":1,"messages":[]}', b'{"model":"echo","messages":[]}', b'{"model":"echo","messages":[{"role":"user"}],"n":0}',
     b'{"model":"echo","messages":[{"role":"user"}],"max_tokens":0}', b'{"model":"echo","messages":["x"]}', b"\xff"],
)  # fmt: skip
def test_a_bad_request_is_a_400_that_says_why(sim, body):
    status, _, data, _ = sim.request("POST", "/v1/chat/completions", body)
    assert status == 400 and json.loads(data)["error"]["message"]


def test_more_tokens_than_memory_should_hold_are_refused(sim):
    assert sim.chat("long-1000000", n=2).status == 400


def test_an_unknown_behaviour_is_a_404(sim):
    answer = sim.chat("echo+cutt")
    assert answer.status == 404 and "'cutt'" in answer.json()["error"]["message"]


def test_bad_http_is_refused(sim):
    with socket.create_connection(("127.0.0.1", sim.port), timeout=10) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        assert read_to_end(sock).startswith(b"HTTP/1.1 400")


# --- memory of requests


def test_the_last_request_is_shown_as_it_arrived(sim):
    sim.request("POST", "/v1/chat/completions", b'{ "model":"echo","messages":[{"role":"user","content":"\xc3\xa9"}] }', {"X-Odd-Case": "v"})
    last = sim.get("/sim/last")
    assert last["head"].startswith("POST /v1/chat/completions HTTP/1.1\r\n") and "\r\nX-Odd-Case: v" in last["head"]
    assert last["body"] == '{ "model":"echo","messages":[{"role":"user","content":"é"}] }'


def test_the_bill_file_has_two_lines_an_attempt(sim):
    answer = sim.chat("cached", "one two three four five")
    with open(sim.bill_path) as file:
        lines = [line for line in map(json.loads, file) if line["attempt"] == answer.attempt]
    assert [line["event"] for line in lines] == ["seen", "billed"]
    assert lines[1]["cached_tokens"] == 4 == answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
