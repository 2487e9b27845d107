"""Media models: the shipped rows, what names resolve to, and how an operator prices one."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.catalog.job_models import find_job_model, load_job_models
from aigate.catalog.load import load_catalog
from aigate.config import Config, ModelConfig, ProviderConfig
from aigate.core.job import FIELDS, MODALITIES, JobRequest, plan_job
from aigate.errors import ClientError
from aigate.providers.table import ROWS

MODELS = load_job_models()
KEYS = {name: "k" for name, row in ROWS.items() if row.key_variable}
DOLLARS = 1_000_000_000


def make(**config):
    return load_catalog(Config(credentials=KEYS, **config), sim_base_url="unix:///run/sim.sock:/v1")


def refusal(catalog, slug, endpoint):
    with pytest.raises(ClientError) as caught:
        catalog.resolve(slug, endpoint) if endpoint == "chat" else catalog.resolve_job(slug, endpoint)
    return caught.value


@pytest.mark.parametrize("slug", MODELS)
def test_a_row_is_whole_and_means_what_it_says(slug):
    row, limits = MODELS[slug], MODELS[slug].job
    assert row.modality in MODALITIES and row.doc
    assert slug.startswith("*/") or ROWS[slug.partition("/")[0]].jobs
    assert limits.takes <= set(FIELDS) and limits.needs <= limits.takes
    assert not (limits.durations_s and limits.duration_range_s)
    for name, allowed in limits.values.items():
        assert limits.defaults.get(name, allowed[0]) in allowed
    assert set(limits.price_by) <= limits.takes


@pytest.mark.parametrize("slug", [slug for slug, row in MODELS.items() if row.usd])
def test_the_price_without_a_variant_is_the_dearest_so_that_nothing_new_runs_too_cheap(slug):
    row = MODELS[slug]
    rates = {name: rate[0] / rate[1] for name, rate in row.price().rates.items()}
    assert {name.partition(":")[0] for name in rates} == {row.job.unit}
    is_flag = all(isinstance(row.job.defaults.get(name), bool) for name in row.job.price_by)  # always said, so that none is "not"
    assert rates[row.job.unit] == max(rates.values()) or (row.job.price_by and is_flag)


@pytest.mark.parametrize("slug", MODELS)
@settings(max_examples=25, deadline=None)
@given(duration=st.none() | st.floats(0.1, 5000), resolution=st.none() | st.sampled_from(["720p", "1080P", "4k", "tall"]), audio=st.none() | st.booleans())
def test_whatever_is_asked_what_is_planned_is_allowed_and_priced(slug, duration, resolution, audio):
    row, limits = MODELS[slug], MODELS[slug].job
    request = JobRequest(modality=row.modality, prompt="x", image_url="https://p.example/a.png", duration=duration, resolution=resolution, audio=audio)
    planned = plan_job(request, limits)
    (name, thousandths), = planned.units.items()
    assert thousandths > 0
    assert row.price() is None or {name, limits.unit} & set(row.price().rates)
    length = planned.request.duration
    if length is not None:
        low, high = limits.duration_range_s or (min(limits.durations_s), max(limits.durations_s))
        assert low <= length <= high and (not limits.durations_s or length in limits.durations_s)
        assert limits.unit != "second" or thousandths >= length * 1000
        assert not limits.whole_seconds or length == int(length)
    for field, allowed in limits.values.items():
        assert getattr(planned.request, field) in (None, *allowed)


def test_a_pattern_is_found_by_the_names_it_is_for_and_a_name_of_its_own_wins():
    assert find_job_model(MODELS, "sim/video+slow-3s").modality == "video"
    assert find_job_model(MODELS, "vertex/veo-3.1-generate-001").job.durations_s == (4.0, 6.0, 8.0)
    assert find_job_model(MODELS, "luma/ray-3.2") is MODELS["luma/ray-3.2"]
    assert find_job_model(MODELS, "openai/gpt-5.4") is None


@pytest.mark.parametrize("slug,endpoint,dialect,url_path", [
    ("sim/video", "video", "fal", "/fal"), ("sim/music+fast", "music", "fal", "/fal"), ("sim/3d", "3d", "fal", "/fal"),
    ("luma/ray-3.2", "video", "luma", "/v1"), ("google/gemini-omni-1.2-flash", "video", "google-omni", "/v1beta"),
    ("gemini/gemini-omni-1.2-flash", "video", "google-omni", "/v1beta"),
])  # fmt: skip
def test_a_media_model_resolves_under_its_modality(slug, endpoint, dialect, url_path):
    target = make().resolve_job(slug, endpoint)
    assert (target.dialect, target.url_path, target.endpoint, target.model.modality) == (dialect, url_path, endpoint, endpoint)
    assert target.model.job is not None


@pytest.mark.parametrize("slug,endpoint,says", [
    ("sim/video", "music", "makes videos; for music take: "), ("sim/video", "chat", "send it to /v1/videos/generations"),
    ("openai/gpt-5.4", "video", "is no model that makes videos"), ("anthropic/claude-opus-5.5", "3d", "is no model that makes 3D models"),
    ("luma/ray-3.2", "chat", "send it to /v1/videos/generations"), ("meshy/meshy-6", "3d", "has no price here"), ("fal/owner/new", "video", "has no price here"),
])  # fmt: skip
def test_what_cannot_be_made_is_refused_with_the_reason(slug, endpoint, says):
    assert says in refusal(make(), slug, endpoint).message


@pytest.mark.parametrize("field,unit", [("usd_per_second", "second"), ("usd_per_item", "item"), ("usd_per_credit", "credit")])
def test_an_operator_prices_a_model_in_the_unit_it_is_sold_by(field, unit):
    model = make(models={"fal/owner/new": ModelConfig(**{field: 0.25})}).resolve_job("fal/owner/new", "video").model
    assert model.job.unit == unit and model.job.takes == set(FIELDS)
    picodollars, milliunits = model.price.rates[unit]
    assert 1000 * picodollars == DOLLARS // 4 * 1000 * milliunits


def test_a_price_of_the_operators_replaces_the_unit_with_its_variants():
    price = make(models={"luma/ray-3.2": ModelConfig(usd_per_item=0.5)}).resolve_job("luma/ray-3.2", "video").model.price
    assert set(price.rates) == {"item"} and price.source == "config"


def test_a_provider_may_have_jobs_and_nothing_else():
    providers = {"own": ProviderConfig(jobs="openai-videos", base_url="http://127.0.0.1:9/v1", unpriced="allow", api_key="none")}
    target = make(providers=providers).resolve_job("own/any", "video")
    assert (target.dialect, target.provider.dialects, target.provider.auth) == ("openai-videos", {}, "none")
    assert "no chat endpoint" in refusal(make(providers=providers), "own/any", "chat").message


def test_a_built_in_row_can_be_given_jobs_and_keeps_its_own_key():
    catalog = make(providers={"openai": ProviderConfig(jobs="openai-videos", unpriced="allow")})
    row = catalog.resolve_job("openai/clips", "video").provider
    assert (row.auth, row.credential, row.dialects["chat"]) == ("bearer", "k", "openai-chat")


def test_the_formats_own_headers_and_way_of_sending_a_key_come_with_it():
    providers = {
        "f": ProviderConfig(jobs="fal", base_url="https://f.example", api_key="k", unpriced="allow"),
        "r": ProviderConfig(jobs="runway", base_url="https://r.example", api_key="k", unpriced="allow", idempotency_header="idempotency-key"),
    }
    catalog = load_catalog(Config(credentials={"f": "k", "r": "k"}, providers=providers), sim_base_url=None)
    assert catalog.resolve_job("f/a/b", "video").provider.auth == "scheme:Key"
    assert catalog.resolve_job("r/gen4.5", "video").provider.idempotency_header == "idempotency-key"
    assert dict(catalog.resolve_job("r/gen4.5", "video").provider.headers) == {"x-runway-version": "2024-11-06"}


def test_every_price_of_a_job_can_be_found_again_by_its_id():
    catalog = make(models={"fal/owner/new": ModelConfig(usd_per_second=0.25)})
    known = {price.id for price in catalog.prices()}
    for slug, endpoint in (("sim/video", "video"), ("luma/ray-3.2", "video"), ("fal/owner/new", "video")):
        assert catalog.resolve_job(slug, endpoint).model.price.id in known
    assert all(re.fullmatch(r"prc_[0-9a-f]{32}", price_id) for price_id in known)
