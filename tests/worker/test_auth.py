"""Authentication from memory: which header holds the key, what each bad key is told, and that revocations always win."""

import asyncio
from types import SimpleNamespace

import pytest

from aigate.core.call import Principal
from aigate.core.client_key import key_digest, make_key
from aigate.errors import ClientError, GatewayError
from aigate.worker.auth import ROOT, KeyRing

SECRET = b"s" * 32
KEY = make_key(b"k" * 32).encode()
DIGEST = key_digest(SECRET, KEY)
ANNA = Principal(key_id="key_anna")


class Directory:
    """A link whose keeper knows `keys`; counts the questions."""

    def __init__(self, keys=None):
        self.keys = keys or {}
        self.asked = []
        self.is_stale = False
        self.on_keys = None

    async def look_up(self, digest):
        self.asked.append(digest)
        await asyncio.sleep(0)
        principal = self.keys.get(digest)
        self.on_keys(((digest, principal),), False)
        return principal


def ring_of(keys=None, **options):
    directory = Directory(keys)
    return KeyRing(SECRET, "root-secret", directory, **options), directory


def carrying(headers):
    """A request with these headers, the first of its kind."""
    return SimpleNamespace(headers=headers, head=SimpleNamespace(key_digest=None))


def authenticate(ring, headers, now_s=1_000.0):
    return asyncio.run(ring.authenticate(headers, now_s))


def refusal(ring, headers, now_s=1_000.0):
    with pytest.raises(ClientError) as caught:
        authenticate(ring, headers, now_s)
    assert (caught.value.status, caught.value.type, caught.value.code) == (401, "authentication_error", "invalid_key")
    return caught.value.message


@pytest.mark.parametrize(
    "headers",
    [
        {b"authorization": b"Bearer " + KEY},
        {b"authorization": b"bearer  " + KEY + b" "},
        {b"x-api-key": KEY},
        {b"authorization": b"Basic dTpw", b"x-api-key": KEY},
    ],
)
def test_a_key_is_read_from_either_header(headers):
    ring, _ = ring_of({DIGEST: ANNA})
    assert authenticate(ring, headers) == ANNA


def test_a_known_key_is_found_without_asking_again():
    ring, directory = ring_of({DIGEST: ANNA})
    assert ring.find(carrying({b"authorization": b"Bearer " + KEY})) is None
    authenticate(ring, {b"x-api-key": KEY})
    assert ring.find(carrying({b"authorization": b"Bearer " + KEY})) == ANNA
    assert ring.find(carrying({b"x-api-key": KEY})) == ANNA
    assert directory.asked == [DIGEST]


def test_a_key_that_came_before_is_known_by_its_head_until_it_is_revoked():
    ring, _ = ring_of()
    again = carrying({b"x-api-key": KEY})  # one head, asked for again and again
    assert ring.find(again) is None
    ring.apply(((DIGEST, ANNA),), False)
    assert ring.find(again) == ANNA
    again.headers = {}
    assert ring.find(again) == ANNA
    ring.apply(((DIGEST, None),), False)
    assert ring.find(again) is None


def test_the_root_key_needs_no_keeper():
    ring, directory = ring_of()
    directory.is_stale = True
    headers = {b"authorization": b"Bearer root-secret"}
    assert authenticate(ring, headers) is ROOT
    directory.is_stale = False
    assert ring.find(carrying(headers)) is ROOT
    assert directory.asked == []


def test_without_a_root_key_an_empty_key_is_nobody():
    ring = KeyRing(SECRET, "", Directory())
    assert ring.find(carrying({b"authorization": b"Bearer "})) is None
    refusal(ring, {b"authorization": b"Bearer "})


def test_each_bad_key_is_told_what_is_wrong_and_never_repeated():
    ring, _ = ring_of()
    assert "No API key" in refusal(ring, {})
    assert "no bearer key" in refusal(ring, {b"authorization": b"Basic dTpw"})
    message = refusal(ring, {b"x-api-key": b"sk-other-123"})
    assert "malformed" in message and "sk-other-123" not in message
    message = refusal(ring, {b"x-api-key": KEY})
    assert "unknown or was revoked" in message and KEY.decode() not in message


def test_a_malformed_key_is_refused_without_asking_the_keeper():
    ring, directory = ring_of()
    refusal(ring, {b"x-api-key": b"sk-aig-short"})
    assert directory.asked == []


def test_an_unknown_key_is_asked_for_again_only_after_a_while():
    ring, directory = ring_of()
    for now_s in (1_000.0, 1_001.0, 1_004.9):
        refusal(ring, {b"x-api-key": KEY}, now_s)
    assert len(directory.asked) == 1
    refusal(ring, {b"x-api-key": KEY}, 1_005.1)
    assert len(directory.asked) == 2


def test_a_pushed_key_is_in_force_at_once_even_if_it_was_unknown_before():
    ring, _ = ring_of()
    refusal(ring, {b"x-api-key": KEY})
    ring.apply(((DIGEST, ANNA),), False)
    assert authenticate(ring, {b"x-api-key": KEY}) == ANNA
    ring.apply(((DIGEST, None),), False)
    refusal(ring, {b"x-api-key": KEY})


def test_a_revocation_that_overtakes_the_answer_wins():
    ring, directory = ring_of({DIGEST: ANNA})

    async def look_up(digest):
        directory.on_keys(((digest, ANNA),), False)  # the answer …
        directory.on_keys(((digest, None),), False)  # … and, before the caller wakes, the revocation
        return ANNA

    directory.look_up = look_up
    refusal(ring, {b"x-api-key": KEY})


def test_an_expired_key_is_refused_although_it_is_known():
    ring, _ = ring_of({DIGEST: Principal(key_id="key_anna", expires_at=2_000.0)})
    assert authenticate(ring, {b"x-api-key": KEY}, 1_999.0).key_id == "key_anna"
    assert ring.find(carrying({b"x-api-key": KEY})) is None  # the fast path has no clock
    assert "expired at 1970-01-01T00:33:20+00:00" in refusal(ring, {b"x-api-key": KEY}, 2_000.0)


def test_a_silent_keeper_ends_the_trust_in_known_keys():
    ring, directory = ring_of({DIGEST: ANNA})
    authenticate(ring, {b"x-api-key": KEY})
    directory.is_stale = True
    assert ring.find(carrying({b"x-api-key": KEY})) is None
    with pytest.raises(GatewayError) as caught:
        authenticate(ring, {b"x-api-key": KEY})
    assert (caught.value.status, caught.value.retryable) == (503, True)


def test_the_cache_is_bounded_drops_the_oldest_and_keeps_the_root_key():
    ring, _ = ring_of(capacity=64)
    for number in range(1_000):
        ring.apply(((number.to_bytes(32, "big"), Principal(key_id=str(number))),), False)
    assert len(ring._principals) <= 65
    assert ring._principals[(999).to_bytes(32, "big")].key_id == "999"
    assert (0).to_bytes(32, "big") not in ring._principals
    assert ring.find(carrying({b"x-api-key": b"root-secret"})) is ROOT


def test_a_reset_forgets_all_but_the_root_key():
    ring, _ = ring_of()
    ring.apply(((DIGEST, ANNA),), False)
    ring.apply((), True)
    assert ring.find(carrying({b"x-api-key": KEY})) is None
    assert ring.find(carrying({b"x-api-key": b"root-secret"})) is ROOT
