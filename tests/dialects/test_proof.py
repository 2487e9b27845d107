"""Proofs sealed for another dialect's field."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aigate.dialects.proof import MARK, seal, unseal


@given(st.sampled_from(["gemini", "openai-responses"]), st.text())
def test_a_sealed_proof_comes_back_with_its_origin(origin: str, proof: str) -> None:
    assert seal(origin, proof).startswith(MARK)
    assert unseal(seal(origin, proof)) == (origin, proof)


@given(st.text() | st.text().map(lambda text: MARK + text))
def test_what_nobody_sealed_is_not_unsealed(value: str) -> None:
    opened = unseal(value)
    assert opened is None or seal(*opened) == value


def test_a_providers_own_signature_is_left_alone() -> None:
    assert unseal("EqQBCgIYAhIM1gbcDa9GJwZA2b3h") is None
