"""Every client × every format of provider × every feature, through one real gateway: SDKs unmodified, the simulated provider as strict as the
vendors' documents. What came out is the table of docs/dialects.md (`AIGATE_WRITE_DOCS=1` writes it there)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Gateway
from tests.e2e.four_formats import PROVIDERS, serve_four_formats
from tests.e2e.matrix import ANSWERS, CLIENTS, QUESTION, SEEN, Client, LangChainOpenAI, OpenAIChatClient

PAGE = Path(__file__).parents[2] / "docs" / "dialects.md"
BEGIN, END = "<!-- matrix -->\n", "<!-- end of matrix -->\n"


def text(client: Client, provider: str) -> None:
    assert f"You said: {QUESTION}" in client.text(f"{provider}/echo")


def stream(client: Client, provider: str) -> None:
    assert client.stream(f"{provider}/echo") == client.text(f"{provider}/echo")


def tools(client: Client, provider: str) -> None:
    said = client.tools(f"{provider}/tools-2")
    assert all(answer in said for answer in ANSWERS), said


def schema(client: Client, provider: str) -> None:
    city = client.schema(f"{provider}/echo")
    assert (city.name, city.people) == ("sim", 1)


def image(client: Client, provider: str) -> None:
    assert SEEN in client.image(f"{provider}/echo")


def reasoning(client: Client, provider: str) -> None:
    said = client.reasoning(f"{provider}/reasoning-12")
    if isinstance(client, OpenAIChatClient | LangChainOpenAI) and provider == "responses":
        assert said.tokens == 12  # chat has no way to ask for the summary, which this format alone shows
    elif isinstance(client, LangChainOpenAI):
        assert said.tokens == 12  # it passes over a field that OpenAI's own models do not have
    else:
        assert said.text.startswith("Simulated reasoning")


def loop(client: Client, provider: str) -> None:
    model = f"{provider}/tools-2+reasoning-12"
    assert " ".join(ANSWERS) in client.loop([model, model])


def moves(client: Client, provider: str) -> None:
    """From this provider to each other one, and back."""
    others = [other for other in PROVIDERS.values() if other != provider]
    for other in others:
        assert " ".join(ANSWERS) in client.loop([f"{name}/tools-2+reasoning-12" for name in (provider, other, provider)])


FEATURES: dict[str, Callable[[Client, str], None]] = {
    "text": text, "stream": stream, "two tools at once": tools, "JSON schema": schema, "image": image, "reasoning": reasoning,
    "tool loop with thinking": loop, "change of vendor": moves,
}  # fmt: skip
_found: dict[tuple[str, str, str], str] = {}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with serve_four_formats(tmp_path_factory.mktemp("matrix")) as served:
        yield served.gateway


@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("form", PROVIDERS)
@pytest.mark.parametrize("name", CLIENTS)
def test_a_client_does_it_with_a_provider_of_this_format(served: Gateway, name: str, form: str, feature: str) -> None:
    client: Any = CLIENTS[name](served.url, served.key)
    FEATURES[feature](client, PROVIDERS[form])
    _found[name, form, feature] = outcome([headers.get("x-aig-warning", "") for headers in client.headers])


def outcome(warnings: list[str]) -> str:
    """kept, or the kinds of change and what they were of."""
    found = re.findall(r'(\w+);param="[^"]+"[^,]*?reason="([^"]+)"', " ".join(warnings))
    return ", ".join(sorted({f"{kind}: {reason}" for kind, reason in found})) or "kept"


def matrix() -> str:
    lines = [f"| client | feature | {' | '.join(f'`{form}`' for form in PROVIDERS)} |", "|---|---|" + "---|" * len(PROVIDERS)]
    lines += [
        f"| {name} | {feature} | {' | '.join(_found[name, form, feature] for form in PROVIDERS)} |" for name in CLIENTS for feature in FEATURES
    ]
    return "\n".join(lines) + "\n"


def test_the_page_is_what_the_run_produced() -> None:
    if len(_found) < len(CLIENTS) * len(PROVIDERS) * len(FEATURES):
        pytest.skip("only a part of the matrix was run")
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    told, end, after = rest.partition(END)
    assert end, f"{PAGE} has no place for the matrix"
    if os.environ.get("AIGATE_WRITE_DOCS"):
        PAGE.write_text(before + BEGIN + matrix() + END + after)
    else:
        assert told == matrix(), "docs/dialects.md is out of date: AIGATE_WRITE_DOCS=1 python -m pytest tests/e2e/test_matrix.py -n 0"
