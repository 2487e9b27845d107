"""A client's key: its shape, and that the digest depends on the whole key and the secret."""

from hypothesis import given
from hypothesis import strategies as st

from aigate.core.client_key import is_well_formed, key_digest, make_key


@given(st.binary(min_size=32, max_size=32))
def test_every_key_made_is_well_formed(random):
    assert is_well_formed(make_key(random).encode())


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_different_randomness_gives_different_keys(one, other):
    assert (make_key(one) == make_key(other)) == (one == other)


def test_a_key_that_is_too_short_too_long_or_odd_is_not_well_formed():
    key = make_key(bytes(32)).encode()
    for wrong in (key[:-1], key + b"A", key + b"\n", b"sk-" + key, key[:-1] + b"*", b""):
        assert not is_well_formed(wrong)


def test_the_digest_is_32_bytes_and_needs_the_secret():
    key = make_key(bytes(32)).encode()
    assert len(key_digest(b"a" * 32, key)) == 32
    assert key_digest(b"a" * 32, key) != key_digest(b"b" * 32, key)
