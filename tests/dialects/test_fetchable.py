"""What the gateway has to fetch: by target, by kind, wherever it stands."""

import msgspec
import pytest

from aigate.core.call import Call
from aigate.core.neutral import Media, Message, Request, Text, ToolResult
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.dialects.fetchable import may_name_urls, media_to_fetch

PICTURE, PAPER = "https://pictures.test/a.png", "https://papers.test/a.pdf"


def target(dialect: str, **quirks: object) -> Target:
    return Target("p/m", Provider(name="p", base_url="http://p"), "m", Model(slug="p/m"), Quirks(**quirks), dialect, "/", "chat")  # type: ignore[arg-type]


def request() -> Request:
    result = ToolResult("c1", [Text("see"), Media("document", url=PAPER)])
    parts = [Text("look"), Media("image", url=PICTURE), Media("image", data="QQ==", media_type="image/png"), Media("image", file_id="f")]
    return Request("m", [Message("user", parts), Message("tool", [result])])


def paths(found: list) -> list[str]:
    return [wanted.path for wanted in found]


@pytest.mark.parametrize(
    ("dialect", "needs", "expected"),
    [
        ("anthropic-messages", (), []),
        ("openai-responses", (), []),
        ("gemini", (), []),
        ("openai-chat", (), ["messages[1].content[0].content[1]"]),
        ("openai-chat", ("image",), ["messages[0].content[1]", "messages[1].content[0].content[1]"]),
        ("gemini", ("image",), ["messages[0].content[1]"]),
    ],
)
def test_only_what_the_target_takes_as_data_is_wanted(dialect, needs, expected):
    assert paths(media_to_fetch(request(), target(dialect, needs_data=frozenset(needs)))) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [("hello", False), ([{"type": "image_url", "image_url": {"url": PICTURE}}], True), ([{"url": "HTTPS://X"}], True), ([{"url": "data:image/png;base64,"}], False)],
)
def test_a_look_at_the_bytes_finds_every_url(content, expected):
    pairs = {"messages": msgspec.Raw(msgspec.json.encode([{"role": "user", "content": content}]))}
    assert may_name_urls(Call("openai-chat", "chat", pairs, 1, ("m",))) is expected


def test_a_url_in_escapes_is_found():
    pairs = {"messages": msgspec.Raw(b'[{"content":[{"url":"\\u0068ttps://x"}]}]')}
    assert may_name_urls(Call("openai-chat", "chat", pairs, 1, ("m",)))
