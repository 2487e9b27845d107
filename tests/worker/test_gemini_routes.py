"""Routes of the Gemini surface: which paths are its own, and the key that must not stay in a query."""

from __future__ import annotations

from typing import Any

import pytest

from aigate.errors import ClientError
from aigate.worker.gemini_routes import ACTIONS, gemini_routes, is_gemini


class Asked:
    """What a route may read of a request."""

    def __init__(self, path: str, query: str = "", method: str = "POST", headers: dict[bytes, bytes] | None = None):
        self.path, self.query, self.method, self.headers = path, query, method, headers or {}


HANDLERS: dict[str, Any] = {action: object() for action in ACTIONS}
find: Any = gemini_routes(HANDLERS)


@pytest.mark.parametrize("path", ["/v1beta/models/sim/echo:{}", "/v1beta/models/sim%2Fecho:{}", "/v1/models/ollama/qwen:8b:{}"])
@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_finds_its_handler_whatever_the_model(path: str, action: str) -> None:
    assert find(Asked(path.format(action))) is HANDLERS[action]


@pytest.mark.parametrize(("path", "method"), [("/v1/models/sim/echo", "GET"), ("/v1/models", "GET"), ("/v1beta/models", "GET"), ("/v1/chat", "POST")])
def test_what_is_not_its_own_is_left_to_others(path: str, method: str) -> None:
    assert find(Asked(path, method=method)) is None


def test_an_unknown_action_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ClientError, match="countTokens") as caught:
        find(Asked("/v1beta/models/sim/echo:embedContent"))
    assert caught.value.status == 404


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_key_leaves_the_query_for_its_header(method: str) -> None:
    asked = Asked("/v1beta/models/sim/echo:generateContent", "a=1&key=sk%2Did&alt=sse", method)
    find(asked)
    assert (asked.query, asked.headers) == ("a=1&alt=sse", {b"x-goog-api-key": b"sk-id"})


def test_a_header_that_is_there_wins_over_the_query() -> None:
    asked = Asked("/v1beta/models/sim/echo:generateContent", "key=one", headers={b"x-goog-api-key": b"two"})
    find(asked)
    assert (asked.query, asked.headers) == ("", {b"x-goog-api-key": b"two"})


def test_errors_take_this_surfaces_shape_only_on_its_paths() -> None:
    assert is_gemini("/v1beta/anything") and is_gemini("/v1/models/sim/echo:generateContent")
    assert not is_gemini("/v1/models/sim/echo") and not is_gemini("/v1/chat/completions")
