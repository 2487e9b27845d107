"""Embeddings: input in every form, vectors untouched, usage and cost."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.edits import apply_to_request
from aigate.core.usage import Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ClientError, ProviderError
from tests.dialects.recorded import target

EMBEDDINGS = DIALECTS["openai-embeddings"]
WHERE = target(dialect="openai-embeddings")
BODY = b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.10,-1e-7]}],"model":"up","usage":{"prompt_tokens":8,"total_tokens":8}}'


def call_of(**fields: Any) -> Any:
    return EMBEDDINGS.read_call(json.dumps({"model": "mock/e", "input": "hi", **fields}).encode(), "embeddings")


@pytest.mark.parametrize("value", ["hi", ["a", "b"], [1, 2, 3], [[1], [2, 3]]])
def test_every_form_of_input_passes_untouched(value: object) -> None:
    call = call_of(input=value, dimensions=3, encoding_format="base64", user="u", fallbacks=False)
    wanted = {"model": "upstream", "input": value, "dimensions": 3, "encoding_format": "base64", "user": "u"}
    assert json.loads(EMBEDDINGS.edit_pairs(call, (), WHERE)) == wanted
    request = EMBEDDINGS.read_request(call)
    apply_to_request(request, ())
    assert json.loads(EMBEDDINGS.write_request(request, WHERE)) == wanted
    assert (call.models, call.allows_fallback, call.endpoint) == (("mock/e",), False, "embeddings")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input", []), ("input", None), ("input", 5), ("input", {}), ("input", ["a", 1]), ("input", ["a"] * 2049), ("input", [True]),
        ("encoding_format", "hex"), ("encoding_format", 1), ("dimensions", 0), ("dimensions", "3"), ("model", 1), ("fallbacks", "x"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ClientError) as caught:
        call_of(**{field: value})
    assert caught.value.param == field


def test_input_must_be_there() -> None:
    with pytest.raises(ClientError, match="input is missing"):
        EMBEDDINGS.read_call(b'{"model":"m"}', "embeddings")


def test_the_reply_is_the_providers_but_for_model_and_usage() -> None:
    opened = EMBEDDINGS.open_reply(BODY, WHERE)
    usage, raw_usage = opened.usage, opened.raw_usage
    assert usage == Usage(8, 0)
    sent = EMBEDDINGS.splice_reply(opened, WHERE, "mock/e", Settlement(usage, 160, raw_usage))
    assert sent is not None
    assert b"[0.10,-1e-7]" in sent
    wanted = {"model": "mock/e", "usage": {"prompt_tokens": 8, "total_tokens": 8, "cost": 1.6e-07}}
    assert json.loads(sent) == {**json.loads(BODY), **wanted}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"data":[1'])
def test_what_holds_no_embeddings_is_a_bad_reply(body: bytes) -> None:
    with pytest.raises(ProviderError) as caught:
        EMBEDDINGS.read_reply(body, WHERE)
    assert caught.value.kind == "bad_reply"


def test_an_error_under_status_200_is_an_error() -> None:
    with pytest.raises(ProviderError) as caught:
        EMBEDDINGS.open_reply(b'{"error":{"message":"no","code":404}}', WHERE)
    assert caught.value.status == 404


def test_an_output_of_no_tokens_is_said_only_where_the_provider_says_it() -> None:
    body = BODY.replace(b'"total_tokens":8', b'"completion_tokens":0,"total_tokens":8')
    for reply, output in ((BODY, None), (body, 0)):
        opened = EMBEDDINGS.open_reply(reply, WHERE)
        settlement = Settlement(opened.usage or Usage(), 160, opened.raw_usage)
        for sent in (
            EMBEDDINGS.splice_reply(opened, WHERE, "mock/e", settlement),
            EMBEDDINGS.write_reply(EMBEDDINGS.read_reply(reply, WHERE), "mock/e", settlement),
        ):
            assert json.loads(sent)["usage"].get("completion_tokens") == output
