"""Webhooks without their I/O: filters, bodies, signatures, the schedule of tries."""

import json

import pytest
from aigateway import verify_webhook

from aigate.core.webhook import EVENT_TYPES, Endpoint, envelope, is_pattern, next_try_ms, signature_headers, wants

NOW_S = 1_800_000_000
TOLERANT = 10**10  # seconds: the signatures here are of another time


def test_the_official_sdk_takes_our_signature_for_any_body():
    for body in (b"{}", "{\"a\":\"ä \U0001f600\"}".encode(), b"", b"x" * 100_000):
        header = signature_headers(["whsec_a"], body, NOW_S)["x-gateway-signature"]
        assert verify_webhook("whsec_a", body, header, TOLERANT)
        assert not verify_webhook("whsec_b", body, header, TOLERANT)
        assert not verify_webhook("whsec_a", body + b" ", header, TOLERANT)


def test_both_spellings_carry_the_same_signature():
    headers = signature_headers(["whsec_a"], b"{}", NOW_S)
    assert headers["x-gateway-signature"] == f"t={headers['aig-timestamp']},v1={headers['aig-signature']}"
    assert headers["aig-timestamp"] == str(NOW_S)


def test_while_two_secrets_are_valid_both_sign_and_users_of_the_old_one_notice_nothing():
    headers = signature_headers(["whsec_new", "whsec_old"], b"{}", NOW_S)
    assert headers["x-gateway-signature"].count("v1=") == 2
    assert verify_webhook("whsec_old", "{}", headers["x-gateway-signature"], TOLERANT)
    new_only = signature_headers(["whsec_new"], b"{}", NOW_S)["aig-signature"]
    assert f"v1={new_only}," in headers["x-gateway-signature"]


@pytest.mark.parametrize(
    ("patterns", "event", "answer"),
    [((), "job.failed", True), (("job.failed",), "job.failed", True), (("job.*",), "job.failed", True), (("batch.*", "balance.low"), "job.failed", False), (("job.fail",), "job.failed", False)],
)
def test_an_endpoint_hears_of_what_it_asked_for(patterns, event, answer):
    assert wants(patterns, event) is answer


def test_patterns_that_match_nothing_are_none():
    assert all(map(is_pattern, [*EVENT_TYPES, "job.*", "sub_account.*"]))
    assert not any(map(is_pattern, ["", "*.*", "jobs.*", "job", ".*", "job.*.x"]))


def test_an_endpoint_hears_of_what_is_its_owners():
    def hears(sub_account, key, **owner):
        return Endpoint(id="we_1", account_id="acc", url="u", created_ms=0, **owner).hears_of("job.failed", sub_account, key)

    assert hears(None, "key_1") and hears("sa_1", "key_1")  # the account's
    assert hears("sa_1", "key_1", sub_account_id="sa_1") and not hears("sa_2", "key_1", sub_account_id="sa_1") and not hears(None, "key_1", sub_account_id="sa_1")
    assert hears("sa_1", "key_1", key_id="key_1") and not hears("sa_1", "key_2", key_id="key_1") and not hears("sa_1", None, key_id="key_1")
    assert not hears(None, None, disabled_ms=1)


def test_an_envelope_is_json_with_the_payload_as_it_was():
    payload = '{"job_id":"job_1","cost":0.10}'
    text = envelope("evt_1", "job.completed", 1_800_000_000_123, payload)
    assert json.loads(text) == {"id": "evt_1", "type": "job.completed", "created": NOW_S, "data": {"job_id": "job_1", "cost": 0.1}}
    assert payload in text


def test_eight_tries_take_most_of_a_day_and_then_it_ends():
    delays = (10, 60, 300, 1800, 7200, 21_600, 54_000)
    for chance in (0.0, 0.5, 0.999):
        at, tries = 0, 1
        while (due := next_try_ms(delays, tries, at, chance)) is not None:
            assert due > at
            at, tries = due, tries + 1
        assert tries == 8
        assert 20 * 3_600_000 < at <= 24 * 3_600_000
