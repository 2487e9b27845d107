"""Media by URL, through a real gateway: a URL that leads inside is refused in the caller's own error shape, and no provider hears of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.replay import Bench, bench

SETTINGS = '[providers.chat]\ndialect = "openai-chat"\nbase_url = "{url}"\napi_key = "sk-of-the-provider"\nunpriced = "allow"\n'
INSIDE = "http://169.254.169.254/latest/meta-data"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("urls"), SETTINGS) as running:
        yield running


def messages(url: str) -> dict[str, Any]:
    document = {"type": "document", "source": {"type": "url", "url": url}}
    return {"model": "chat/gpt", "max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "read"}, document]}]}


@pytest.mark.parametrize("url", [INSIDE, "http://127.0.0.1:1/a.pdf", "http://localhost:1/a.pdf", "http://[::ffff:127.0.0.1]:1/", "file:///etc/passwd"])
def test_a_url_that_leads_inside_is_refused_in_the_callers_shape(served: Bench, url: str) -> None:
    served.replay.request = b""
    status, _, body = served.gateway.request("POST", "/v1/messages", messages(url))
    assert (status, body["type"], body["error"]["type"]) == (400, "error", "invalid_request_error")
    assert "messages[0].content[1]" in body["error"]["message"]
    assert served.replay.request == b""


def test_an_image_that_the_provider_reads_itself_is_passed_on(served: Bench) -> None:
    served.replay.answer(500, "application/json", b"{}")
    image = {"type": "image", "source": {"type": "url", "url": INSIDE}}
    served.gateway.request("POST", "/v1/messages", {**messages(INSIDE), "messages": [{"role": "user", "content": [image]}]})
    assert INSIDE.encode() in served.replay.request
