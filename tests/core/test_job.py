"""What a job's request becomes for one model, and what it can cost."""

import msgspec
import pytest

from aigate.core.job import JobLimits, JobRequest, plan_job
from aigate.core.price import price_units, units_of, units_usage, usd_to_rate
from aigate.core.target import Price
from aigate.errors import ClientError

LIMITS = JobLimits(
    takes=frozenset({"duration", "resolution", "audio", "image_url"}),
    durations_s=(4.0, 8.0),
    values={"resolution": ("720p", "1080p")},
    defaults={"duration": 4.0, "resolution": "720p", "style": "plain"},
    unit="second",
    price_by=("resolution", "audio"),
    takes_extra=frozenset({"style", "camera"}),
)


def plan(limits=LIMITS, **fields):
    return plan_job(JobRequest(modality="video", **{"prompt": "a boat", **fields}), limits)


def test_what_is_left_out_is_the_models_default_and_priced():
    planned = plan()
    assert (planned.request.duration, planned.request.resolution, planned.request.extra) == (4.0, "720p", {"style": "plain"})
    assert planned.units == {"second:720p": 4000} and planned.warnings == ()


def test_what_is_outside_goes_to_the_nearest_and_is_told():
    planned = plan(duration=7.0, resolution="4k")
    assert (planned.request.duration, planned.request.resolution) == (8.0, "720p")
    assert [(warning.kind, warning.param, warning.before, warning.after) for warning in planned.warnings] == [
        ("clamped", "resolution", "4k", "720p"),
        ("clamped", "duration", 7.0, 8.0),
    ]


@pytest.mark.parametrize("spelling", ["1080", "1080P", "1080p"])
def test_a_spelling_is_no_change(spelling):
    planned = plan(resolution=spelling, audio=True)
    assert planned.request.resolution == "1080p" and planned.warnings == ()
    assert planned.units == {"second:1080p+audio": 4000}


def test_what_the_model_does_not_take_is_dropped_and_told():
    planned = plan(lyrics="la la", seed=7, extra={"camera": "pan", "colour": "red"})
    assert (planned.request.lyrics, planned.request.seed) == (None, None)
    assert planned.request.extra == {"camera": "pan", "style": "plain"}
    assert [warning.param for warning in planned.warnings] == ["lyrics", "seed", "colour"]


@pytest.mark.parametrize(
    ("limits", "fields", "field"),
    [
        (LIMITS, {"prompt": "  "}, "prompt"),
        (JobLimits(takes=frozenset({"image_url"}), needs=frozenset({"image_url"})), {}, "image_url"),
    ],
)
def test_what_the_model_cannot_do_without_is_refused(limits, fields, field):
    with pytest.raises(ClientError) as refused:
        plan(limits, **fields)
    assert (refused.value.status, refused.value.param) == (400, field)


def test_a_length_that_nobody_says_is_held_for_at_its_longest():
    music = JobLimits(takes=frozenset({"duration"}), duration_range_s=(3.0, 300.0), unit="second")
    assert plan(music).units == {"second": 300_000}
    assert plan(music, duration=10.5).units == {"second": 10_500}
    assert plan(JobLimits(unit="credit", max_units=40)).units == {"credit": 40_000}
    assert plan(JobLimits()).units == {"item": 1000}


def test_units_cost_what_their_own_rate_says_else_their_units():
    price = Price(rates={"second": usd_to_rate("0.10", 1000), "second:1080p": usd_to_rate("0.25", 1000)})
    assert price_units(price, {"second:1080p": 4000}) == 1_000_000_000
    assert price_units(price, {"second:720p": 4000}) == 400_000_000
    assert price_units(price, {"second": 1}) == 100_000
    assert price_units(price, {"item": 1000}) == price_units(None, {"second": 1000}) == 0


def test_a_rows_raw_usage_says_what_it_was_priced_by_and_only_a_jobs_does():
    raw = units_usage({"second:720p": 4000}, b'{"credits": 12}')
    assert units_of(raw) == {"second:720p": 4000}
    assert msgspec.json.decode(raw)["reported"] == {"credits": 12}
    for foreign in (b"", b'{"prompt_tokens": 3}', b'{"priced_units": "lies"}', b'{"priced_units":"lies"}', b'{"priced_units":'):
        assert units_of(foreign) == {}
