from aigate.worker.breaker import Breakers

SLUG = "openai/gpt"


def opened(now: float = 0.0) -> Breakers:
    breakers = Breakers(failures=3, open_s=10)
    for _ in range(3):
        breakers.failed(SLUG, "timeout", now)
    return breakers


def test_opens_after_failures_in_a_row():
    breakers = Breakers(failures=3, open_s=10)
    for _ in range(2):
        breakers.failed(SLUG, "reset", 0)
        assert breakers.admits(SLUG, 0)
    breakers.failed(SLUG, "reset", 0)
    assert not breakers.admits(SLUG, 0)
    assert breakers.admits("openai/other", 0)


def test_a_success_in_between_starts_the_count_again():
    breakers = Breakers(failures=2, open_s=10)
    breakers.failed(SLUG, "reset", 0)
    breakers.succeeded(SLUG)
    breakers.failed(SLUG, "reset", 0)
    assert breakers.admits(SLUG, 0)


def test_a_refused_request_says_nothing_of_the_targets_health():
    breakers = Breakers(failures=1, open_s=10)
    for kind in ("rejected", "rate_limited", "auth"):
        breakers.failed(SLUG, kind, 0)
    assert breakers.admits(SLUG, 0)


def test_half_open_lets_one_probe_through_and_its_success_closes():
    breakers = opened()
    assert not breakers.admits(SLUG, 9.9)
    assert breakers.reopens_in_s(SLUG, 4) == 6
    assert breakers.admits(SLUG, 10)
    assert not breakers.admits(SLUG, 10)  # only one
    breakers.succeeded(SLUG)
    assert breakers.admits(SLUG, 10)
    assert breakers.states(10) == {}


def test_a_failed_probe_opens_again():
    breakers = opened()
    assert breakers.admits(SLUG, 10)
    breakers.failed(SLUG, "timeout", 10)
    assert not breakers.admits(SLUG, 19.9)
    assert breakers.admits(SLUG, 20)


def test_a_probe_that_was_refused_leaves_room_for_the_next_probe():
    breakers = opened()
    assert breakers.admits(SLUG, 10)
    breakers.failed(SLUG, "rejected", 10)
    assert breakers.admits(SLUG, 10)


def test_states_for_the_health_page():
    breakers = opened()
    assert breakers.states(5)[SLUG] == {"state": "open", "failures": 3, "last_error": "timeout"}
    assert breakers.states(11)[SLUG]["state"] == "half_open"


def test_a_probe_that_never_reports_makes_way_for_another():
    breakers = opened()
    assert breakers.admits(SLUG, 10)
    assert not breakers.admits(SLUG, 19)
    assert breakers.admits(SLUG, 20)
