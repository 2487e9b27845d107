"""The catalogue: what a name means, why it means nothing, what configuration changes, and the shipped data files."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.catalog.load import MAX_REMEMBERED, load_catalog
from aigate.config import Config, ModelConfig, ProviderConfig, Server
from aigate.core.price import price_id, price_usage
from aigate.core.target import Model
from aigate.core.usage import Usage
from aigate.errors import ClientError

SIM_URL = "unix:///run/sim.sock:/v1"
KEYS = {name: "sk-test" for name in ("openai", "google", "moonshot", "groq", "mistral", "xai", "openrouter", "zai", "huggingface")}


def make(credentials=KEYS, sim_base_url=SIM_URL, **config):
    return load_catalog(Config(credentials=credentials, **config), sim_base_url=sim_base_url)


def refusal(catalog, slug, endpoint="chat"):
    with pytest.raises(ClientError) as caught:
        catalog.resolve(slug, endpoint)
    return caught.value


MOCK = {"mock": ProviderConfig(dialect="openai-chat", base_url="http://127.0.0.1:9100/v1", unpriced="allow")}
MOCK_STRICT = {"mock": ProviderConfig(dialect="openai-chat", base_url="http://127.0.0.1:9100/v1")}


EVERYTHING = make(providers=MOCK)


# --- names ---------------------------------------------------------------------------------------------------------------------


def test_a_slug_names_provider_model_price_and_path():
    target = make().resolve("openai/gpt-5.4", "chat")
    assert (target.slug, target.provider.name, target.upstream_model) == ("openai/gpt-5.4", "openai", "gpt-5.4")
    assert (target.url_path, target.dialect, target.endpoint) == ("/v1/chat/completions", "openai-chat", "chat")
    assert (target.model.context_window, target.model.is_reasoning) == (1_050_000, True)
    assert price_usage(target.model.price, Usage(1000, 1000)) == 1000 * 2500 + 1000 * 15000
    assert target.provider.credential == "sk-test"


def test_a_name_is_looked_up_once():
    catalog = make()
    assert catalog.resolve("openai/gpt-5.4", "chat") is catalog.resolve("openai/gpt-5.4", "chat")


def test_names_that_callers_invent_do_not_pile_up():
    catalog = make(providers=MOCK)
    for number in range(MAX_REMEMBERED + 10):
        catalog.resolve(f"mock/m{number}", "chat")
    assert len(catalog._targets["chat"]) <= MAX_REMEMBERED


@pytest.mark.parametrize(
    ("asked", "slug"),
    [("x-ai/grok-4.5", "xai/grok-4.5"), ("moonshotai/kimi-k3", "moonshot/kimi-k3"), ("hf/zai-org/GLM-5.2", "huggingface/zai-org/GLM-5.2")],
)
def test_aliases_of_a_provider_lead_to_it(asked, slug):
    assert make().resolve(asked, "chat").slug == slug


@pytest.mark.parametrize("name", ["gpt-5.4-2026-03-05", "gpt-5.4-20260305"])
def test_a_dated_name_has_the_price_and_the_facts_of_its_family(name):
    family, dated = (make().resolve(f"openai/{slug}", "chat").model for slug in ("gpt-5.4", name))
    assert dated.slug == f"openai/{name}"
    assert (dated.price, dated.context_window, dated.max_output_tokens) == (family.price, family.context_window, family.max_output_tokens)


def test_a_route_is_part_of_a_routers_model_name():
    catalog = make()
    partner = catalog.resolve("huggingface/openai/gpt-oss-120b:cerebras", "chat").model.price
    any_route = catalog.resolve("huggingface/openai/gpt-oss-120b", "chat").model.price
    usage = Usage(1000, 1000)
    assert price_usage(any_route, usage) >= price_usage(partner, usage) > 0
    assert catalog.resolve("huggingface/openai/gpt-oss-120b:fastest", "chat").model.price == any_route


@pytest.mark.parametrize(
    "slug", ["", "/", "openai/", "/gpt", "openai/..", "openai/a/../b", "openai/a b", "openai/é", "-a/b", "openai/" + "a" * 200, "a\nb/c", "openai/a%2e"]
)
def test_a_malformed_name_is_refused(slug):
    error = refusal(make(), slug)
    assert (error.status, error.code, error.param) == (404, "unknown_model", "model")
    assert len(error.message) < 500


@given(st.text(max_size=250) | st.from_regex(r"(openai|sim|groq|huggingface)/[ -~]{0,40}", fullmatch=True))
def test_any_text_is_a_target_or_a_clients_error(slug):
    try:
        target = EVERYTHING.resolve(slug, "chat")
    except ClientError as error:
        assert error.status in (400, 404) and error.param == "model"
    else:
        assert target.url_path.isascii() and target.slug.startswith(target.provider.name + "/")


@pytest.mark.parametrize("name", ["gpt-5.4", "gpt-4o-2024-08-06", "gpt-3.5-turbo"])
def test_a_bare_name_is_told_its_whole_name(name):
    assert f"names are provider/model; did you mean openai/{name}?" in refusal(make(), name).message


@pytest.mark.parametrize(
    ("slug", "near", "variable"),
    [
        ("gpt-4o", "openai/gpt-4o", "OPENAI_API_KEY"),
        ("deepseek-chat", "deepseek/deepseek-chat", "DEEPSEEK_API_KEY"),
        ("opnai/gpt-4o", "openai/gpt-4o", "OPENAI_API_KEY"),
        ("claude-sonnet-4-5", "anthropic/claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ("antropic/claude-sonnet-4-5", "anthropic/claude-sonnet-4.5", "ANTHROPIC_API_KEY"),
    ],
)
def test_a_name_of_a_provider_that_is_not_live_is_told_both_things(slug, near, variable):
    message = refusal(make({"google": "sk-test"}), slug).message
    assert f"did you mean {near}?" in message and f"{variable} is not set" in message


@pytest.mark.parametrize(
    ("slug", "near"),
    [("openai/gpt-5.44", "openai/gpt-5.4"), ("opnai/gpt-5.4", "openai/gpt-5.4"), ("OpenAI/GPT-5.4", "openai/gpt-5.4"), ("sim/echoo!", None)],
)
def test_an_unknown_name_is_told_its_neighbours(slug, near):
    error = refusal(make(), slug)
    assert error.status == 404
    if near:
        assert near in error.message


def test_a_provider_that_is_not_live_says_what_is_missing():
    error = refusal(make(), "deepseek/deepseek-flash")
    assert (error.status, error.code) == (404, "unknown_model")
    assert "DEEPSEEK_API_KEY is not set" in error.message
    assert "OLLAMA_BASE_URL" in refusal(make(), "ollama/llama3").message


# --- endpoints -----------------------------------------------------------------------------------------------------------------


def test_embeddings_have_a_path_and_a_format_of_their_own():
    target = make().resolve("openai/text-embedding-3-small", "embeddings")
    assert (target.url_path, target.dialect, target.model.modality) == ("/v1/embeddings", "openai-embeddings", "embedding")
    assert price_usage(target.model.price, Usage(1000)) == 20_000


def test_an_embedding_model_does_not_chat_and_groq_does_not_embed():
    assert "/v1/embeddings" in refusal(make(), "openai/text-embedding-3-small").message
    error = refusal(make(), "groq/openai/gpt-oss-120b", "embeddings")
    assert (error.status, error.param) == (400, "model")


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("http://127.0.0.1:9100/v1", "/v1/chat/completions"),
        ("http://127.0.0.1:9100", "/chat/completions"),
        ("https://h/a/b/", "/a/b/chat/completions"),
        ("unix:///run/x.sock:/v1", "/v1/chat/completions"),
        ("unix:///run/x.sock", "/chat/completions"),
    ],
)
def test_the_path_on_the_origin_follows_the_base_url(base_url, path):
    providers = {"mock": ProviderConfig(dialect="openai-chat", base_url=base_url, unpriced="allow")}
    assert make(providers=providers).resolve("mock/m", "chat").url_path == path


# --- configuration -------------------------------------------------------------------------------------------------------------


def test_a_provider_of_ones_own_passes_any_name():
    target = make(providers=MOCK).resolve("mock/any/thing:1", "chat")
    assert (target.upstream_model, target.model.price, target.provider.auth) == ("any/thing:1", None, "none")
    assert make(providers=MOCK).resolve("mock/e", "embeddings").url_path == "/v1/embeddings"


def test_a_model_without_a_price_is_refused_unless_allowed():
    error = refusal(make(providers=MOCK_STRICT), "mock/gpt")
    assert (error.status, error.code, error.param) == (400, "unpriced_model", "model")
    assert '[models."mock/gpt"]' in error.message and 'unpriced = "allow"' in error.message


def test_a_configured_model_is_as_the_operator_says():
    models = {"mock/gpt": ModelConfig(input_usd_per_mtok=0.15, output_usd_per_mtok=0.60, cached_input_usd_per_mtok=0.075, max_output_tokens=7)}
    catalog = make(providers=MOCK_STRICT, models=models)
    model = catalog.resolve("mock/gpt", "chat").model
    assert model.max_output_tokens == 7
    assert price_usage(model.price, Usage(1000, 1000, cached_tokens=500)) == 500 * 150 + 500 * 75 + 1000 * 600
    assert model.price.id == price_id(model.price)
    assert [known.slug for known in catalog.models() if known.slug.startswith("mock/")] == ["mock/gpt"]


def test_a_rate_given_replaces_that_rate_alone_and_may_name_an_alias():
    models = {"x-ai/grok-4.5": ModelConfig(input_usd_per_mtok=1, fallbacks=("sim/echo",))}
    model = make(models=models).resolve("xai/grok-4.5", "chat").model
    assert (model.price.rates["input"], model.price.rates["output"], model.price.tiers) == ((1_000_000, 1), (6_000_000, 1), ())
    assert (model.fallbacks, model.is_reasoning) == (("sim/echo",), True)


def test_configuration_lies_over_a_built_in_row():
    providers = {"openai": ProviderConfig(base_url="http://127.0.0.1:1/v9", api_key="none", on_cancel="stops", models=("gpt-5*",))}
    catalog = make(credentials={}, providers=providers)
    target = catalog.resolve("openai/gpt-5.4", "chat")
    assert (target.url_path, target.provider.auth, target.quirks.on_cancel) == ("/v9/chat/completions", "none", "stops")
    assert target.quirks.effort == ("none", "low", "medium", "high", "xhigh")
    assert "limited to gpt-5*" in refusal(catalog, "openai/gpt-4o").message


@pytest.mark.parametrize(
    ("name", "provider", "reason"),
    [
        ("mock", ProviderConfig(dialect="openai-chat", base_url="http://h/v1", api_key="env:MOCK_KEY"), "MOCK_KEY is not set"),
        ("openai", ProviderConfig(base_url="http://h/v1"), "OPENAI_API_KEY is not set"),
    ],
)
def test_a_configured_provider_without_its_key_is_not_live(name, provider, reason):
    catalog = make(credentials={}, providers={name: provider})
    assert (name, reason) in catalog.providers_dormant()
    assert name not in catalog.providers_live()


def test_a_local_server_is_live_by_its_base_url():
    catalog = make(providers={"ollama": ProviderConfig(base_url="http://127.0.0.1:11434/v1")})
    target = catalog.resolve("ollama/llama3:8b", "chat")
    assert (target.model.price, target.provider.auth, target.quirks.on_cancel) == (None, "none", "stops")


def test_the_simulated_provider_is_there_unless_switched_off():
    catalog = make(credentials={})
    target = catalog.resolve("sim/429-then-ok-2", "chat")
    assert (target.url_path, target.provider.base_url, target.provider.sends_attempt_id) == ("/v1/chat/completions", SIM_URL, True)
    assert price_usage(target.model.price, Usage(10, 10, cached_tokens=4)) == 6 * 100 + 4 * 25 + 10 * 400
    assert catalog.providers_live() == ["sim"]
    assert "sim.enabled is false" in refusal(make(sim_base_url=None), "sim/echo").message


# --- lists ---------------------------------------------------------------------------------------------------------------------


def test_models_lists_what_can_be_called_and_nothing_else():
    catalog = make()
    models = catalog.models()
    slugs = [model.slug for model in models]
    assert "openai/gpt-5.4" in slugs and "sim/echo" in slugs and "mistral/mistral-embed" in slugs
    assert not [slug for slug in slugs if slug.startswith("deepseek/")]
    assert len(slugs) == len(set(slugs))
    for model in models:
        if model.job is not None:
            assert catalog.resolve_job(model.slug, model.modality).model == model
        else:
            assert catalog.resolve(model.slug, "embeddings" if model.modality == "embedding" else "chat").model == model
        assert catalog.model(model.slug) == model


def test_names_a_provider_is_limited_to_are_listed():
    providers = {"mock": ProviderConfig(dialect="openai-chat", base_url="http://h/v1", unpriced="allow", models=("one", "two", "x-*"))}
    catalog = make(credentials={}, providers=providers)
    assert [model.slug for model in catalog.models() if model.slug.startswith("mock/")] == ["mock/one", "mock/two"]
    assert "did you mean mock/two?" in refusal(catalog, "mock/twoo").message


def test_every_price_a_call_can_have_is_among_prices():
    catalog = make(providers=MOCK, models={"mock/gpt": ModelConfig(input_usd_per_mtok=1)})
    ids = {price.id for price in catalog.prices()}
    for model in catalog.models():
        assert model.price.id in ids
        assert all(service.id in ids for service in model.price.services.values())
    assert all(price.id == price_id(price) for price in catalog.prices())


def test_capabilities_of_models_are_words_of_the_vocabulary():
    catalog = make({**KEYS, **{name: "k" for name in ("deepseek", "cerebras", "together", "fireworks")}})
    words = {capability["id"] for capability in catalog.capabilities()}
    assert {"tools", "streaming", "vision", "json", "caching", "reasoning", "batch", "async", "image-to-image"} <= words
    assert all(set(model.capabilities) <= words for model in catalog.models())


def test_siblings_are_models_that_some_provider_has():
    every = {name: "k" for name in ("deepseek", "cerebras", "together", "fireworks")} | KEYS
    catalog = make(every)
    for model in catalog.models():
        for sibling in model.fallbacks:
            assert isinstance(catalog.model(sibling), Model)


def test_a_catalogue_is_loaded_quickly():
    make()  # warm the disk
    best_ms = min(_timed(make) for _ in range(5)) * 1000
    assert best_ms < 60  # 5 on an idle machine


def _timed(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def test_no_configured_value_shows_in_a_catalogue_error():
    catalog = make({"openai": "sk-very-secret"}, server=Server())
    assert "secret" not in refusal(catalog, "openai/nope").message


def test_the_origin_of_a_provider_is_known_whether_live_or_not():
    catalog = load_catalog(Config(providers={"mock": ProviderConfig(base_url="unix:///run/x.sock:/v1", dialect="openai-chat", api_key="none")}), sim_base_url=None)
    assert catalog.origin_of("openai") == ("openai", "https://api.openai.com")
    assert catalog.origin_of("moonshotai") == ("moonshot", "https://api.moonshot.ai")
    assert catalog.origin_of("mock") == ("mock", "unix:///run/x.sock")
    for unknown in ("sim", "nobody", ""):
        with pytest.raises(ClientError):
            catalog.origin_of(unknown)


# --- a provider of another's models ---------------------------------------------------------------------------------------------

AZURE = {"azure": ProviderConfig(base_url="https://res.openai.azure.com/openai/v1")}


def test_a_resource_serves_anothers_models_under_its_own_address():
    azure = make({"azure": "k", "openai": "k"}, providers=AZURE)
    target, original = azure.resolve("azure/gpt-5.4", "chat"), azure.resolve("openai/gpt-5.4", "chat")
    assert (target.url_path, target.provider.auth, target.dialect) == ("/openai/v1/chat/completions", "header:api-key", "openai-chat")
    assert (target.quirks, target.model.price) == (original.quirks, original.model.price)
    assert (target.model.context_window, target.model.fallbacks) == (original.model.context_window, ())
    assert azure.resolve("azure-openai/gpt-5-pro", "responses").url_path == "/openai/v1/responses"


def test_a_deployment_of_ones_own_naming_gets_its_price_from_the_configuration():
    assert refusal(make({"azure": "k"}, providers=AZURE), "azure/our-model").code in ("unpriced_model", "unknown_model")
    models = {"azure/our-model": ModelConfig(input_usd_per_mtok=1, output_usd_per_mtok=2)}
    assert make({"azure": "k"}, providers=AZURE, models=models).resolve("azure/our-model", "chat").model.price is not None


@pytest.mark.parametrize(("credentials", "providers", "missing"), [({"azure": "k"}, {}, "AZURE_OPENAI_ENDPOINT"), ({}, AZURE, "AZURE_OPENAI_API_KEY")])
def test_half_a_resource_is_not_live_and_what_is_missing_is_named(credentials, providers, missing):
    assert f"{missing} is not set" in refusal(make(credentials, providers=providers), "azure/gpt-5.4").message


def test_prices_of_another_list_are_among_those_that_calls_settle_at():
    azure = make({"azure": "k"}, providers=AZURE)
    assert azure.resolve("azure/gpt-5.4", "chat").model.price.id in {price.id for price in azure.prices()}


def test_one_provider_serves_the_models_of_two_vendors_each_in_its_own_way():
    place = "/v1beta1/projects/p/locations/global/publishers"
    providers = {"vertex": ProviderConfig(base_url="https://aiplatform.googleapis.com/v1beta1/projects/p/locations/global")}
    catalog = make({"vertex": "{}", "google": "k", "anthropic": "k"}, providers=providers)
    gemini, google = catalog.resolve("vertex/gemini-2.5-pro", "chat"), catalog.resolve("google/gemini-2.5-pro", "chat")
    assert (gemini.dialect, gemini.url_path) == ("gemini", f"{place}/google/models/gemini-2.5-pro:generateContent")
    assert gemini.stream_url_path == f"{place}/google/models/gemini-2.5-pro:streamGenerateContent?alt=sse"
    assert (gemini.model.price, gemini.model.context_window) == (google.model.price, google.model.context_window)
    claude, own = catalog.resolve("vertex/claude-opus-4.8", "chat"), catalog.resolve("anthropic/claude-opus-4.8", "chat")
    assert (claude.dialect, claude.url_path) == ("anthropic-messages", f"{place}/anthropic/models/claude-opus-4-8:rawPredict")
    assert claude.stream_url_path == f"{place}/anthropic/models/claude-opus-4-8:streamRawPredict"
    assert (claude.names_model, own.names_model, claude.slug) == (False, True, "vertex/claude-opus-4.8")
    assert (claude.model.price, claude.model.is_reasoning, claude.quirks.effort) == (own.model.price, True, own.quirks.effort)
    dated = catalog.resolve("vertex/claude-opus-4-1@20250805", "responses")
    assert dated.url_path == f"{place}/anthropic/models/claude-opus-4-1@20250805:rawPredict" and dated.model.price is not None
    assert {claude.model.price.id, gemini.model.price.id} <= {price.id for price in catalog.prices()}
    assert "limited to" in refusal(catalog, "vertex/llama-4").message
    assert {"vertex/claude-opus-4.8", "vertex/gemini-2.5-pro"} <= {model.slug for model in catalog.models()}


def test_snippets_name_the_server_that_gives_them():
    snippets = make(server=Server(port=5001)).describe("sim/echo")["schema"]["snippets"]
    assert all("http://127.0.0.1:5001/v1" in snippet for snippet in snippets.values())
