import pytest

from aigate.core.call import Call, Principal
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.errors import ClientError, GatewayError, ProviderError, model_not_found
from aigate.worker.breaker import Breakers
from aigate.worker.plan import Plan, Policy, plan_targets

POLICY = Policy(max_attempts=3, budget_s=8.0, retry_base_ms=250)
ANYONE = Principal(key_id="key_1")


def target(slug: str, fallbacks: tuple[str, ...] = ()) -> Target:
    name, _, upstream = slug.partition("/")
    provider = Provider(name=name, base_url="http://127.0.0.1:1")
    return Target(slug, provider, upstream, Model(slug=slug, fallbacks=fallbacks), Quirks(), "openai-chat", "/v1", "chat")


def call(*models: str, **fields) -> Call:
    return Call("openai-chat", "chat", {}, 0, models, **fields)


def plan(*slugs: str, breakers: Breakers | None = None) -> Plan:
    return Plan([target(slug) for slug in slugs], POLICY, breakers or Breakers(), 0.0)


def overloaded(**fields) -> ProviderError:
    return ProviderError("busy", kind="overloaded", **fields)


def test_retries_the_only_target_with_doubled_jittered_waits():
    steps = plan("a/x")
    first = steps.first(0.0)
    one = steps.after(first, overloaded(), 0.0, 0.5)
    two = steps.after(one.target, overloaded(), 0.0, 0.0)
    assert (one.target.slug, one.delay_s) == ("a/x", 0.25)
    assert (two.target.slug, two.delay_s) == ("a/x", 0.4)  # 500 ms, 20 % less
    assert steps.after(two.target, overloaded(), 0.0, 0.5) is None  # three attempts were made


def test_falls_back_at_once_to_the_next_target():
    steps = plan("a/x", "b/y")
    step = steps.after(steps.first(0.0), ProviderError("gone", kind="reset"), 0.0, 0.5)
    assert (step.target.slug, step.delay_s) == ("b/y", 0.0)


def test_honours_retry_after_and_never_comes_back_sooner():
    steps = plan("a/x")
    step = steps.after(steps.first(0.0), overloaded(retry_after_s=2.0), 0.0, 0.0)
    assert step.delay_s == 2.0


def test_gives_up_when_retry_after_is_past_the_budget():
    steps = plan("a/x")
    assert steps.after(steps.first(0.0), overloaded(retry_after_s=60.0), 0.0, 0.5) is None


def test_starts_no_attempt_after_the_budget():
    steps = plan("a/x", "b/y")
    assert steps.after(steps.first(0.0), overloaded(), 8.1, 0.5) is None


def test_a_refused_request_is_not_sent_elsewhere():
    steps = plan("a/x", "b/y")
    refused = ProviderError("bad", kind="rejected", status=400, retryable=False)
    assert steps.after(steps.first(0.0), refused, 0.0, 0.5) is None


def test_our_bad_credential_goes_on_to_another_target_but_not_back():
    steps = plan("a/x", "b/y")
    auth = ProviderError("key", kind="auth", retryable=False)
    step = steps.after(steps.first(0.0), auth, 0.0, 0.5)
    assert step.target.slug == "b/y"
    assert steps.after(step.target, auth, 0.0, 0.5) is None


def test_a_timeout_is_not_repeated_on_the_same_target():
    steps = plan("a/x")
    assert steps.after(steps.first(0.0), ProviderError("slow", kind="timeout"), 0.0, 0.5) is None


def test_skips_a_target_whose_breaker_is_open():
    breakers = Breakers(failures=1, open_s=10)
    breakers.failed("a/x", "reset", 0.0)
    assert plan("a/x", "b/y", breakers=breakers).first(0.0).slug == "b/y"


def test_says_when_to_come_back_if_every_breaker_is_open():
    breakers = Breakers(failures=1, open_s=10)
    breakers.failed("a/x", "reset", 0.0)
    with pytest.raises(GatewayError) as raised:
        plan("a/x", breakers=breakers).first(4.0)
    assert (raised.value.status, raised.value.retry_after_s) == (503, 6.0)


KNOWN = {"a/x": target("a/x", ("b/y", "c/gone")), "b/y": target("b/y"), "d/z": target("d/z")}


def resolve(slug: str, endpoint: str) -> Target:
    if slug not in KNOWN:
        raise model_not_found(f"unknown model {slug!r}")
    return KNOWN[slug]


def slugs(targets: list[Target]) -> list[str]:
    return [each.slug for each in targets]


def test_siblings_of_the_catalogue_follow_and_missing_ones_are_passed_over():
    assert slugs(plan_targets(call("a/x"), ANYONE, resolve)) == ["a/x", "b/y"]


def test_fallbacks_false_keeps_to_what_was_asked():
    assert slugs(plan_targets(call("a/x", allows_fallback=False), ANYONE, resolve)) == ["a/x"]
    assert slugs(plan_targets(call("a/x", "d/z", allows_fallback=False), ANYONE, resolve)) == ["a/x", "d/z"]


def test_a_model_array_is_tried_in_its_order_without_repeats():
    assert slugs(plan_targets(call("d/z", "a/x", "d/z"), ANYONE, resolve)) == ["d/z", "a/x"]


def test_an_unknown_model_in_an_array_is_an_error():
    with pytest.raises(ClientError) as raised:
        plan_targets(call("a/x", "no/such"), ANYONE, resolve)
    assert raised.value.status == 404


def test_a_missing_model_says_how_to_name_one():
    with pytest.raises(ClientError) as raised:
        plan_targets(call(), ANYONE, resolve)
    assert raised.value.param == "model"


def test_a_scoped_key_is_told_what_it_may_use_and_siblings_respect_it():
    scoped = Principal(key_id="key_2", allowed_models=("a/*", "d/z"))
    assert slugs(plan_targets(call("a/x"), scoped, resolve)) == ["a/x"]
    with pytest.raises(ClientError) as raised:
        plan_targets(call("b/y"), scoped, resolve)
    assert (raised.value.status, raised.value.code) == (403, "scope_exceeded")
    assert "a/*" in raised.value.message
