"""The page about the cost of crossing: what it says of given measurements, and that what it sends is what it says it sends."""

import json

from bench.crossing import CROSSINGS, SLUGS, Added, _replies, _request, report


def test_a_missed_target_is_said():
    kept, missed = Added("a", "b", "plain call", 60.0, 40.0, 150.0), Added("a", "b", "chunk", 1.0, 7.5, 6.0)
    assert "Every target is met." in report([kept])
    page = report([kept, missed])
    assert "1 targets are missed." in page
    assert "| a → b | chunk | 1.0 | +7.5 | 8.50 × | ≤ 6 **missed** |" in page


def test_a_call_is_of_about_one_kilobyte_in_every_format():
    for form in SLUGS:
        body = _request(form, "c/m", is_stream=False).partition(b"\r\n\r\n")[2]
        assert json.loads(body) and 800 < len(body) < 1200, (form, len(body))


def test_the_replayer_speaks_every_format_that_is_crossed():
    assert {form for pair in CROSSINGS for form in pair} == set(SLUGS) == set(_replies())
