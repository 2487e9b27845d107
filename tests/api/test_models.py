"""GET /v1/models and its neighbours: what an item says, filters, both spellings of a slug's slash."""

import pytest

from tests.api.plane import run


def test_the_list_has_what_clients_read(tmp_path):
    async def test(plane):
        listed = (await plane.get("/v1/models")).json()
        assert listed["object"] == "list"
        gpt, embed = listed["data"]
        assert (gpt["id"], gpt["object"], gpt["owned_by"], gpt["modality"]) == ("openai/gpt-5.4", "model", "openai", "text")
        assert (gpt["context_window"], gpt["max_output_tokens"], gpt["capabilities"]) == (400_000, 128_000, ["tools", "streaming"])
        assert gpt["pricing"] == {
            "currency": "usd",
            "unit": "per_million_tokens",
            "input": 2.5,
            "output": 15.0,
            "above_input_tokens": {"200000": {"currency": "usd", "unit": "per_million_tokens", "input": 5.0}},
        }
        assert gpt["tier"] == "premium"
        assert (embed["pricing"], embed["tier"], embed["context_window"]) == (None, None, None)

    run(tmp_path, test)


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("modality=text", ["openai/gpt-5.4"]),
        ("modality=embedding", ["sim/embed"]),
        ("provider=sim", ["sim/embed"]),
        ("provider=sim&modality=text", []),
        ("provider=si", []),
    ],
)
def test_the_list_can_be_filtered(tmp_path, query, ids):
    async def test(plane):
        assert [model["id"] for model in (await plane.get(f"/v1/models?{query}")).json()["data"]] == ids

    run(tmp_path, test)


def test_an_unknown_modality_is_a_400_that_lists_the_known_ones(tmp_path):
    async def test(plane):
        reply = await plane.get("/v1/models?modality=smell")
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "modality")
        assert "audio-stt" in reply.json()["error"]["message"]

    run(tmp_path, test)


@pytest.mark.parametrize("slug", ["openai/gpt-5.4", "openai%2Fgpt-5.4", "openai%2fgpt-5.4"])
def test_a_model_is_found_by_either_spelling_of_its_slash(tmp_path, slug):
    async def test(plane):
        model = (await plane.get(f"/v1/models/{slug}")).json()
        assert (model["id"], model["schema"]) == ("openai/gpt-5.4", {"endpoint": "/v1/chat/completions"})
        assert (await plane.get(f"/v1/models/{slug}/schema")).json() == model["schema"]

    run(tmp_path, test)


@pytest.mark.parametrize("path", ["/v1/models/openai/none", "/v1/models/openai/none/schema", "/v1/models/x"])
def test_an_unknown_model_is_a_404(tmp_path, path):
    async def test(plane):
        reply = await plane.get(path)
        assert (reply.status_code, reply.json()["error"]["type"]) == (404, "model_not_found")

    run(tmp_path, test)


def test_capabilities_are_a_list(tmp_path):
    async def test(plane):
        assert (await plane.get("/v1/capabilities")).json()["data"][0]["id"] == "tools"

    run(tmp_path, test)
