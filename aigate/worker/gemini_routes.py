"""Routes of the Gemini surface, whose paths hold the model's name: POST /v1beta/models/{model}:{action}, and the same under /v1.

Finds the handler of an action and takes the key that clients may send as `?key=` out of the query, so that nothing after this sees it
there. It knows nothing of what a call says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from urllib.parse import unquote_plus

from aigate.errors import ClientError
from aigate.worker.listener import Exchange, Handler

ACTIONS = ("generateContent", "streamGenerateContent", "countTokens")
_BETA = "/v1beta/"
_MODELS = ("/v1beta/models/", "/v1/models/")  # the second is also the model list's, whose paths end in no action


def is_gemini(path: str) -> bool:
    """Whether a path is this surface's, served or not."""
    return path.startswith(_BETA) or (path.startswith(_MODELS) and path.endswith(ACTIONS))


def gemini_routes(handlers: Mapping[str, Handler]) -> Callable[[Exchange], Handler | None]:
    """`handlers`: action → handler. What is returned finds a request's; None for what is not this surface's."""

    def find(exchange: Exchange) -> Handler | None:
        path = exchange.path
        if not is_gemini(path):
            return None
        take_key(exchange)
        if exchange.method != "POST" or not path.startswith(_MODELS):
            return None
        handler = handlers.get(path.rpartition(":")[2])
        if handler is None:
            raise ClientError(f"{path[:200]} is not served here: an action is one of {', '.join(handlers)}", status=404, code="not_found")
        return handler

    return find


def take_key(exchange: Exchange) -> None:
    """`?key=…` → the header it stands for; a header that is there already wins."""
    if "key=" not in exchange.query:
        return
    kept = []
    for pair in exchange.query.split("&"):
        name, _, value = pair.partition("=")
        if name == "key":
            exchange.headers = {b"x-goog-api-key": unquote_plus(value).encode(), **exchange.headers}
        else:
            kept.append(pair)
    exchange.query = "&".join(kept)
