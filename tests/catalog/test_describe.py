"""The schema block: what a reader would paste works as written."""

import ast
import json

import pytest

from aigate.catalog.load import load_catalog
from aigate.config import Config
from aigate.errors import ClientError


@pytest.fixture(scope="module")
def catalog():
    return load_catalog(Config(credentials={"openai": "k", "mistral": "k"}), sim_base_url="unix:///s.sock:/v1")


def test_a_chat_model_is_described_whole(catalog):
    schema = catalog.describe("openai/gpt-5.4")["schema"]
    assert schema["endpoint"] == "POST /v1/chat/completions"
    assert schema["request"]["model"] == schema["response"]["model"] == "openai/gpt-5.4"
    assert schema["response"]["usage"]["cost"] > 0
    assert schema["stream"][-1] == "[DONE]" and "usage" in schema["stream"][-2]
    assert set(schema["snippets"]) == {"curl", "python", "typescript"}
    assert any("max_completion_tokens" in quirk for quirk in schema["quirks"])
    assert "reasoning_content" not in json.dumps(schema["response"])  # OpenAI shows none here


def test_reasoning_is_shown_where_it_comes_out(catalog):
    assert catalog.describe("sim/reasoning")["schema"]["response"]["choices"][0]["message"]["reasoning_content"]


def test_an_embedding_model_is_described_by_its_own_endpoint(catalog):
    schema = catalog.describe("mistral/mistral-embed")["schema"]
    assert (schema["endpoint"], schema["stream"]) == ("POST /v1/embeddings", None)


@pytest.mark.parametrize("slug", ["openai/gpt-5.4", "mistral/mistral-embed", "sim/echo", "sim/video"])
def test_snippets_are_well_formed(catalog, slug):
    schema = catalog.describe(slug)["schema"]
    ast.parse(schema["snippets"]["python"])
    body = schema["snippets"]["curl"].partition("-d '")[2].rstrip("'")
    assert json.loads(body) == schema["request"]
    json.dumps(schema)


def test_an_unknown_model_is_not_described(catalog):
    with pytest.raises(ClientError):
        catalog.describe("openai/nope")
