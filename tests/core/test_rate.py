"""Rate limits: no interval ever sees more than the limit allows, over all workers; what is not used is not lost."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.core.rate import BURST_S, REQUESTS, STREAMS, TOKENS, Buckets, Purse, Rate, Want

KEY = Rate(REQUESTS, "key_a", 600)


class Gateway:
    """Workers around one keeper, by hand: what a worker cannot take it asks for, what expires goes back."""

    def __init__(self, rate, workers=1):
        self.rate = rate
        self.buckets = Buckets()
        self.purses = [Purse() for _ in range(workers)]
        self.admitted = []

    def call(self, worker, now, latency_s=0.0):
        """Whether a call that comes now is let through; the keeper's answer takes `latency_s`."""
        purse, wants = self.purses[worker], (Want(self.rate, 1),)
        for want in purse.take(wants, now):
            asked = purse.ahead(want, now)
            share = self.buckets.take(asked, now)
            now += latency_s
            self.back(purse.add(asked, share, now - latency_s, now), now)
            if not share.given or purse.take(wants, now):
                return False
        self.admitted.append(now)
        for asked in purse.thirsty(wants, now):
            self.back(purse.add(asked, self.buckets.take(asked, now), now, now), now)
        return True

    def sweep(self, now):
        for purse in self.purses:
            self.back(purse.sweep(now), now)

    def back(self, permits, now):
        for rate, count in permits:
            self.buckets.give_back(rate, count, now)


def burst(rate):
    return max(1.0, rate.per_second * BURST_S)


@settings(deadline=None, max_examples=300)
@given(
    limit=st.sampled_from((1, 6, 30, 59, 60, 61, 600, 6_000)),
    workers=st.integers(1, 3),
    steps=st.lists(st.tuples(st.integers(0, 2), st.sampled_from((0.0, 0.001, 0.1, 0.5, 1.0, 3.0, 20.0)), st.integers(0, 40)), max_size=60),
)
def test_no_interval_sees_more_than_the_limit_allows_over_all_workers(limit, workers, steps):
    rate = Rate(REQUESTS, "key_a", limit)
    gateway, now, swept_at = Gateway(rate, workers), 100.0, 100.0
    for worker, pause, calls in steps:
        now += pause
        if now - swept_at >= 1:
            gateway.sweep(now)
            swept_at = now
        for _ in range(calls):
            gateway.call(worker % workers, now)
    times = gateway.admitted
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst(rate) + rate.per_second * (times[last] - start) + 1e-6


def test_a_pause_earns_ten_seconds_worth_and_no_more():
    gateway = Gateway(KEY)
    assert sum(gateway.call(0, 50.0) for _ in range(200)) in (90, 100)  # up to a second's worth is kept for what workers hold
    gateway.sweep(1_000.0)
    assert sum(gateway.call(0, 1_000.0) for _ in range(200)) in (90, 100)


@pytest.mark.parametrize("workers", [1, 4])
def test_steady_calls_at_the_limit_all_pass_whichever_worker_they_reach(workers):
    gateway = Gateway(KEY, workers)
    passed = 0
    for step in range(600):  # a minute at 10 a second
        now = 5.0 + step / 10
        if step % 10 == 0:
            gateway.sweep(now)
        passed += gateway.call(step * 7 % workers, now)
    assert passed == 600


def test_permits_nobody_used_go_back():
    gateway = Gateway(KEY, 2)
    for step in range(100):  # worker 0 is busy and takes ahead; then all traffic moves to worker 1
        gateway.call(0, step / 10)
    for now in (11.0, 12.0, 13.0):
        gateway.sweep(now)
    assert sum(gateway.call(1, 30.0) for _ in range(200)) in (90, 100)


def test_a_busy_worker_seldom_asks():
    rate = Rate(REQUESTS, "key_a", 60_000)
    gateway, asked = Gateway(rate), 0
    take = gateway.buckets.take

    def counted(want, now):
        nonlocal asked
        asked += 1
        return take(want, now)

    gateway.buckets.take = counted
    for step in range(5_000):  # 500 a second for ten seconds
        now = step / 500
        if step % 500 == 0:
            gateway.sweep(now)
        assert gateway.call(0, now)
    assert asked < 150


def test_below_one_a_second_each_call_has_a_permit_of_its_own():
    gateway = Gateway(Rate(REQUESTS, "key_a", 6), 2)
    assert gateway.call(0, 0.0) and not gateway.call(1, 0.0)
    assert not gateway.call(0, 9.9) and gateway.call(1, 10.0)


def test_a_refusal_says_when_there_will_be_one():
    buckets = Buckets()
    rate = Rate(REQUESTS, "key_a", 6)
    assert buckets.take(Want(rate, 1), 0.0).given == 1
    share = buckets.take(Want(rate, 1), 4.0)
    assert (share.given, share.left) == (0, 0) and share.wait_s == pytest.approx(6.0)


def test_a_limit_of_zero_lets_nothing_through():
    for kind in (REQUESTS, TOKENS, STREAMS):
        assert Buckets().take(Want(Rate(kind, "key_a", 0), 1), 0.0).given == 0


def test_a_changed_limit_keeps_what_was_taken():
    buckets = Buckets()
    buckets.take(Want(Rate(REQUESTS, "key_a", 60), 8), 0.0)
    share = buckets.take(Want(Rate(REQUESTS, "key_a", 6_000), 1), 0.0)
    assert share.given == 1 and share.left <= 2


def test_tokens_used_beyond_what_was_taken_are_owed():
    buckets, purse, rate = Buckets(), Purse(), Rate(TOKENS, "key_a", 1_000)
    want = Want(rate, 100)
    share = buckets.take(purse.ahead(want, 0.0), 0.0)
    assert purse.add(want, share, 0.0, 0.0) == [] and purse.take((want,), 0.0) == []
    for back in purse.end(want, 1_900):
        buckets.give_back(*back, 0.0)
    assert buckets.take(want, 0.0).wait_s == pytest.approx(60.0)
    assert buckets.take(want, 60.0).given == 100


def test_streams_are_counted_while_they_run():
    buckets, purse, rate = Buckets(), Purse(), Rate(STREAMS, "key_a", 2)
    want = Want(rate, 1)
    for _ in range(2):
        purse.add(want, buckets.take(want, 0.0), 0.0, 0.0)
        assert purse.take((want,), 0.0) == []
    assert buckets.take(want, 1_000.0).given == 0
    assert purse.in_use(1_000.0) == [(rate, 2)]
    for back in purse.end(want, 0):
        buckets.give_back(*back, 1_000.0)
    assert buckets.take(want, 1_000.0).given == 1


def test_a_new_keeper_told_of_what_was_used_gives_no_second_burst():
    old, purse = Buckets(), Purse()
    want = Want(KEY, 1)
    for _ in range(50):
        purse.add(want, old.take(want, 0.0), 0.0, 0.0)
        assert purse.take((want,), 0.0) == []
    new = Buckets()
    for rate, in_use in purse.in_use(1.0):
        new.note_use(rate, in_use, 1.0)
    assert new.take(want, 1.0).given == 0
    assert purse.in_use(100.0) == []  # long enough ago to say nothing


def test_memory_follows_use():
    buckets, purse = Buckets(), Purse()
    for number in range(1_000):
        want = Want(Rate(REQUESTS, f"key_{number}", 60), 1)
        purse.add(want, buckets.take(want, 0.0), 0.0, 0.0)
        purse.take((want,), 0.0)
    for now in (30.0, 60.0):
        purse.sweep(now)
        buckets.sweep(now)
    assert len(buckets) == 0 and not purse.slices
