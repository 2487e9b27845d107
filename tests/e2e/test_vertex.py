"""Vertex AI through a real gateway: Gemini and Claude models of one provider, and the access tokens it wants, from a local token endpoint."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from anthropic import Anthropic
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google import genai
from openai import OpenAI

from tests.conftest import Gateway, start_gateway, wait_until
from tests.http_host import Handler, serving

KEY = rsa.generate_private_key(65537, 2048)
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
PREFIX = "/v1beta1/projects/p1/locations/europe-west1/publishers"
HELLO: Any = [{"role": "user", "content": "hello"}]
CLAUDE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-opus-4-1", "content": [{"type": "text", "text": "Bonjour."}],
    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 3},
}  # fmt: skip
GEMINI = {
    "candidates": [{"content": {"role": "model", "parts": [{"text": "Ciao."}]}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {"promptTokenCount": 4, "candidatesTokenCount": 2, "totalTokenCount": 6}, "modelVersion": "gemini", "responseId": "r1",
}  # fmt: skip


class Google:
    """The token endpoint and the models behind it. `refuses`: how many requests with a good token are answered 401 all the same."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.life_s = 3600.0
        self.is_away = False
        self.may_give = threading.Event()
        self.may_give.set()
        self.refuses = 0
        self.tokens: dict[str, float] = {}  # token → when it ends
        self.claims: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, str], dict[str, Any], str]] = []  # path, headers, body, token

    def exchange(self, form: dict[str, list[str]]) -> tuple[int, dict[str, Any]]:
        head, claims, signature = form["assertion"][0].split(".")
        KEY.public_key().verify(unbase64(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), SHA256())  # raises for a bad one
        assert json.loads(unbase64(head)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        with self.lock:
            self.claims.append(json.loads(unbase64(claims)))
        self.may_give.wait(20)
        with self.lock:
            if self.is_away:
                return 503, {"error": "temporarily_unavailable", "error_description": "come back later"}
        return 200, {"access_token": self.give_token(), "expires_in": self.life_s, "token_type": "Bearer"}

    def give_token(self) -> str:
        with self.lock:
            token = f"ya29.token-{len(self.tokens) + 1}-of-the-test"
            self.tokens[token] = time.monotonic() + self.life_s
        return token

    def generate(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> tuple[int, str, bytes]:
        token = headers.get("authorization", "").removeprefix("Bearer ")
        with self.lock:
            self.asked.append((path, headers, body, token))
            is_refused = self.refuses > 0
            self.refuses -= is_refused
        if is_refused or self.tokens.get(token, 0) < time.monotonic():
            error = {"code": 401, "message": f"{token} is not valid", "status": "UNAUTHENTICATED"}
            return 401, "application/json", json.dumps({"error": error}).encode()
        if "count" in path:
            return 200, "application/json", json.dumps({"totalTokens": 7, "input_tokens": 8}).encode()
        if ":streamRawPredict" in path:
            return 200, "text/event-stream", claude_stream()
        if ":streamGenerateContent" in path:
            return 200, "text/event-stream", b"data: " + json.dumps(GEMINI).encode() + b"\r\n\r\n"
        return 200, "application/json", json.dumps(CLAUDE if "anthropic" in path else GEMINI).encode()


def unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def claude_stream() -> bytes:
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**CLAUDE, "content": [], "stop_reason": None}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Bonjour."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": CLAUDE["usage"]},
        {"type": "message_stop"},
    ]
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events)


@pytest.fixture
def google() -> Iterator[Google]:
    state = Google()

    class Endpoints(Handler):
        def do_GET(self) -> None:
            assert self.headers["metadata-flavor"] == "Google" and self.path.endswith("/default/token")
            self.answer(200, "application/json", json.dumps({"access_token": state.give_token(), "expires_in": 3600}).encode())

        def do_POST(self) -> None:
            body = self.body()
            if self.path == "/token":
                status, answer = state.exchange(parse_qs(body.decode()))
                kind, sent = "application/json", json.dumps(answer).encode()
            else:
                status, kind, sent = state.generate(self.path, self.lower_headers(), json.loads(body))
            self.answer(status, kind, sent)

    with serving(Endpoints) as port:
        state.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
        yield state


def start_at(google: Google, folder: Path) -> Gateway:
    account = {"type": "service_account", "project_id": "p1", "private_key_id": "k1", "private_key": PEM, "client_email": "robot@p1.iam"}
    (folder / "key.json").write_text(json.dumps({**account, "token_uri": google.url + "/token"}))  # type: ignore[attr-defined]
    settings = (
        f'[providers.vertex]\nbase_url = "{google.url}/v1beta1/projects/p1/locations/europe-west1"\n'  # type: ignore[attr-defined]
        f'api_key = "file:{folder / "key.json"}"\n[routing]\nmax_attempts = 1\n'
    )
    return start_gateway(folder, settings)


@pytest.fixture
def gateway(google: Google, tmp_path: Path) -> Iterator[Gateway]:
    running = start_at(google, tmp_path)
    yield running
    running.kill()
    logged = running.errors.read_text()
    assert "ya29" not in logged and "PRIVATE KEY" not in logged


def chat(gateway: Gateway, model: str = "vertex/gemini-2.5-flash", **more: Any) -> tuple[int, dict[str, str], Any]:
    return gateway.request("POST", "/v1/chat/completions", {"model": model, "max_tokens": 20, "messages": HELLO, **more})


def test_the_models_of_both_vendors_answer_every_sdk(google: Google, gateway: Gateway) -> None:
    for model, said in (("vertex/gemini-2.5-flash", "Ciao."), ("vertex/claude-opus-4.1", "Bonjour.")):
        with OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0) as openai:
            answer = openai.chat.completions.create(model=model, messages=HELLO, max_tokens=20)
            assert (answer.choices[0].message.content, answer.model) == (said, model)
            streamed = openai.chat.completions.create(model=model, messages=HELLO, max_tokens=20, stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in streamed) == said
            assert openai.responses.create(model=model, input="hello").output_text == said
        with Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as anthropic:
            message = anthropic.messages.create(model=model, messages=HELLO, max_tokens=20)
            assert message.content[0].text == said and message.usage.cost > 0  # type: ignore[union-attr, attr-defined]
            with anthropic.messages.stream(model=model, messages=HELLO, max_tokens=20) as stream:
                assert stream.get_final_text() == said
        gemini = genai.Client(api_key=gateway.key, http_options={"base_url": gateway.url})
        assert gemini.models.generate_content(model=model, contents="hello").text == said
        assert "".join(part.text or "" for part in gemini.models.generate_content_stream(model=model, contents="hello")) == said
    assert {(path, token) for path, _, _, token in google.asked} == {
        (path, "ya29.token-1-of-the-test")
        for path in (
            f"{PREFIX}/google/models/gemini-2.5-flash:generateContent", f"{PREFIX}/google/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
            f"{PREFIX}/anthropic/models/claude-opus-4-1:rawPredict", f"{PREFIX}/anthropic/models/claude-opus-4-1:streamRawPredict",
        )
    }  # fmt: skip
    for path, _, body, _ in google.asked:
        assert "model" not in body
        assert body.get("anthropic_version") == ("vertex-2023-10-16" if "anthropic" in path else None)
    claims = google.claims[0]
    assert (claims["iss"], claims["exp"] - claims["iat"], len(google.claims)) == ("robot@p1.iam", 3600, 1)
    assert abs(claims["iat"] - time.time()) < 60


    check_names_betas_and_counts(google, gateway)
    google.tokens["own-access-token"] = time.monotonic() + 60
    with OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0, default_headers={"x-byok-vertex": "own-access-token"}) as client:
        client.chat.completions.create(model="vertex/gemini-2.5-flash", messages=HELLO)
    assert google.asked[-1][3] == "own-access-token"


def check_names_betas_and_counts(google: Google, gateway: Gateway) -> None:
    with Anthropic(base_url=gateway.url, api_key=gateway.key, max_retries=0) as anthropic:
        anthropic.beta.messages.create(model="vertex/claude-opus-4-1@20250805", messages=HELLO, max_tokens=20, betas=["context-1m-2025-08-07"])
        path, headers, body, _ = google.asked[-1]
        assert path == f"{PREFIX}/anthropic/models/claude-opus-4-1@20250805:rawPredict"
        assert headers["anthropic-beta"] == "context-1m-2025-08-07"
        assert anthropic.messages.count_tokens(model="vertex/claude-opus-4.1", messages=HELLO).input_tokens == 8
        path, _, body, _ = google.asked[-1]
        assert (path, body["model"]) == (f"{PREFIX}/anthropic/models/count-tokens:rawPredict", "claude-opus-4-1")
        assert anthropic.messages.count_tokens(model="vertex/gemini-2.5-flash", messages=HELLO, system="be kind").input_tokens == 7
        path, _, body, _ = google.asked[-1]
        assert path == f"{PREFIX}/google/models/gemini-2.5-flash:countTokens"
        assert set(body) <= {"contents", "systemInstruction", "tools", "generationConfig"} and body["contents"]


def test_a_token_is_renewed_before_it_ends_and_no_call_waits_for_it(google: Google, tmp_path: Path) -> None:
    google.life_s = 2.0
    gateway = start_at(google, tmp_path)
    try:
        used = set()
        until = time.monotonic() + 10
        while time.monotonic() < until and len(used) < 3:
            status, headers, _ = chat(gateway)
            assert (status, headers["x-aig-attempts"]) == (200, "1")  # never with one that has ended, never asked twice
            used.add(google.asked[-1][3])
            time.sleep(0.02)
        assert len(used) == 3
    finally:
        gateway.kill()


def test_the_last_good_token_serves_while_it_cannot_be_renewed_and_then_calls_say_why(google: Google, tmp_path: Path) -> None:
    google.life_s = 2.0
    gateway = start_at(google, tmp_path)
    try:
        assert chat(gateway)[0] == 200
        google.is_away = True
        wait_until(lambda: len(google.claims) >= 2)  # a renewal was tried, half a second before its end, and failed
        assert chat(gateway)[0] == 200
        status, _, body = wait_until(lambda: (answer := chat(gateway))[0] != 200 and answer)
        error = body["error"]
        assert (status, error["origin"], error["provider"]) == (502, "provider", "vertex")
        assert "access token" in error["message"] and "503" in error["message"] and "come back later" in error["message"]
        google.is_away = False
        wait_until(lambda: chat(gateway)[0] == 200)  # by itself, once it is back
        assert "come back later" in gateway.errors.read_text() and "ya29" not in gateway.errors.read_text()
    finally:
        gateway.kill()


def test_a_token_that_the_provider_refuses_is_renewed_once(google: Google, gateway: Gateway) -> None:
    assert chat(gateway)[0] == 200
    google.refuses = 1
    status, headers, _ = chat(gateway, stream=True)
    assert (status, headers["x-aig-attempts"]) == (200, "2")
    assert [token for _, _, _, token in google.asked] == [f"ya29.token-{number}-of-the-test" for number in (1, 1, 2)]
    google.refuses = 9  # from here on whatever it bears: nothing is gained by asking again and again
    status, _, body = chat(gateway)
    assert (status, body["error"]["origin"]) == (502, "provider")
    assert "ya29" not in json.dumps(body)  # the provider had said it
    assert (len(google.asked), len(google.claims)) == (4, 2)


def test_many_calls_at_once_wait_for_one_token(google: Google, tmp_path: Path) -> None:
    google.may_give.clear()
    gateway = start_at(google, tmp_path)
    try:
        answers: list[int] = []
        threads = [threading.Thread(target=lambda: answers.append(chat(gateway)[0])) for _ in range(8)]
        for thread in threads:
            thread.start()
        wait_until(lambda: google.claims)
        assert not answers
        google.may_give.set()
        for thread in threads:
            thread.join()
        assert answers == [200] * 8
        assert len(google.claims) == 1
    finally:
        google.may_give.set()
        gateway.kill()


def test_a_machine_of_googles_needs_no_key_file(google: Google, tmp_path: Path) -> None:
    settings = f'[providers.vertex]\nbase_url = "{google.url}/v1beta1/projects/p1/locations/europe-west1"\napi_key = "metadata"\n'  # type: ignore[attr-defined]
    gateway = start_gateway(tmp_path, settings, {"GCE_METADATA_HOST": google.url.removeprefix("http://")})  # type: ignore[attr-defined]
    try:
        assert chat(gateway)[0] == 200
        assert google.asked[-1][3] == "ya29.token-1-of-the-test" and google.claims == []
    finally:
        gateway.kill()
