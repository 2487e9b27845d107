"""The rows: complete, consistent, and free of surprises."""

import re
from fnmatch import fnmatchcase
from urllib.parse import urlsplit

import pytest

from aigate.config import DIALECTS, JOBS
from aigate.providers.table import EMBEDDINGS_OF, ROWS, SIM, SIM_PRICE
from aigate.sim.rates import RATES

REMOTE = [row for row in ROWS.values() if row.key_variable]
LOCAL = [row for row in ROWS.values() if not row.key_variable and row.name != SIM]


def test_the_providers_promised_are_there():
    promised = "openai azure anthropic groq mistral openrouter deepseek cerebras zai huggingface moonshot xai google ollama vllm llamacpp sim"
    assert set(promised.split()) <= set(ROWS)


def test_no_name_or_alias_is_used_twice():
    names = [name for row in ROWS.values() for name in (row.name, *row.aliases)]
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name) for name in names)


@pytest.mark.parametrize("row", REMOTE, ids=lambda row: row.name)
def test_a_remote_row_is_reached_safely(row):
    url = urlsplit(row.base_url or f"https://resource.example{row.url_path}")
    assert bool(row.base_url) != bool(row.url_variable)
    assert (url.scheme, url.query, url.fragment, url.username) == ("https", "", "", None)
    assert not row.base_url.endswith("/")
    assert row.auth == "bearer" or row.auth.partition(":")[0] in ("header", "scheme")
    assert row.unpriced == "refuse"


@pytest.mark.parametrize("row", LOCAL, ids=lambda row: row.name)
def test_a_local_row_stays_on_this_machine_and_needs_no_price(row):
    assert urlsplit(row.base_url).hostname == "127.0.0.1"
    assert row.unpriced == "allow"


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_a_row_names_its_source_and_speaks_known_formats(row):
    assert row.doc
    assert row.dialects.get("chat", "openai-chat") in DIALECTS
    assert row.dialects or row.jobs in JOBS
    assert row.dialects.get("embeddings", "openai-embeddings") in EMBEDDINGS_OF.values()


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_every_model_has_quirks_and_every_pattern_can_be_reached(row):
    patterns = [pattern for pattern, _ in row.quirks]
    assert patterns[-1] == "*"
    for place, pattern in enumerate(patterns):
        sample = re.sub(r"\[(.)[^]]*\]", r"\1", pattern).replace("?", "9").replace("*", "~z")
        assert not any(fnmatchcase(sample, earlier) for earlier in patterns[:place]), pattern


def test_a_credential_is_not_shown():
    from msgspec.structs import replace

    assert "hush" not in repr(replace(ROWS["openai"], credential="hush"))


def test_the_simulated_provider_bills_what_its_price_says():
    assert SIM_PRICE.rates == RATES
