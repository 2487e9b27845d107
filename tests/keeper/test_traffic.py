"""Counters for /metrics: what was shipped, once, under labels that callers cannot make."""

import asyncio

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aigate.journal.records import encode_record
from aigate.keeper.metrics import render
from aigate.keeper.shipper import Shipper
from aigate.keeper.traffic import BOUNDS_MS, Traffic


@pytest.fixture
def counted(database, journals_folder):
    """Ships what is in the journals; every sample → value, as a scraper reads them."""
    counters = Traffic(["mock/known"], ["mock"])
    shipper = Shipper(database, journals_folder, on_shipped=counters.add)

    def ship():
        asyncio.run(shipper.catch_up())
        families = text_string_to_metric_families(render({}, counters).decode())
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    return ship


def write(writer, traffic, n, *, model="mock/known", latency_ms=700, ttft_ms=-1, status=200, asked="", end="complete"):
    writer.intent(encode_record(msgspec.structs.replace(traffic.intent(n), model=model)))
    served_by = "" if status >= 400 else model
    call = msgspec.structs.replace(traffic.call_end(n), served_by=served_by, asked_model=asked, status=status)
    settled = msgspec.structs.replace(traffic.settled(n, end=end, call=call), latency_ms=latency_ms, ttft_ms=ttft_ms)
    writer.settled(encode_record(settled))
    return settled


def test_a_settled_call_is_counted_with_its_tokens_cost_and_time(counted, new_journal, traffic):
    writer = new_journal()
    both = [write(writer, traffic, 1, latency_ms=700, ttft_ms=100), write(writer, traffic, 2, latency_ms=1_000)]
    found = counted()
    assert found["aigate_calls_total", "200", "mock/known"] == 2
    assert found["aigate_attempts_total", "complete", "mock/known"] == 2
    assert found["aigate_tokens_total", "input", "mock/known"] == sum(settled.input_tokens for settled in both)
    assert found["aigate_tokens_total", "mock/known", "output"] == sum(settled.output_tokens for settled in both)
    assert found["aigate_cost_usd_total", "mock/known"] == sum(settled.cost_nanousd for settled in both) / 1e9
    durations = [found["aigate_attempt_duration_seconds_bucket", *sorted((str(bound / 1000), "mock/known"))] for bound in BOUNDS_MS]
    assert durations == [0] * BOUNDS_MS.index(1_000) + [2] * (len(BOUNDS_MS) - BOUNDS_MS.index(1_000))
    assert found["aigate_attempt_duration_seconds_sum", "mock/known"] == 1.7
    assert found["aigate_first_byte_seconds_count", "mock/known"] == 1
    assert counted() == found  # nothing is counted twice


def test_a_refused_call_counts_for_the_model_it_asked_for(counted, new_journal, traffic):
    write(new_journal(), traffic, 1, status=502, asked="mock/known", end="failed")
    found = counted()
    assert found["aigate_calls_total", "502", "mock/known"] == 1
    assert found["aigate_attempts_total", "failed", "mock/known"] == 1


def test_no_caller_makes_a_label(counted, new_journal, traffic):
    writer = new_journal()
    for n in range(20):
        write(writer, traffic, n, model=f"mock/invented-{n}")
    write(writer, traffic, 30, status=404, asked='nobody/"x"\n')
    found = counted()
    assert found["aigate_calls_total", "200", "mock/*"] == found["aigate_attempt_duration_seconds_count", "mock/*"] == 20
    assert found["aigate_calls_total", "", "404"] == 1
    assert {label for _, *labels in found for label in labels if "/" in label} == {"mock/*", "mock/known"}


def test_what_was_shipped_before_is_not_counted_again(counted, new_journal, traffic, database, journals_folder):
    write(new_journal(), traffic, 1)
    asyncio.run(Shipper(database, journals_folder).catch_up())
    assert not counted()
