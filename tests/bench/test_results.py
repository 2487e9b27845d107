"""The bench report: medians, ratios and verdicts from given runs."""

import pytest

from bench.results import FACTS, MOST_TIMES_NGINX, median, missed, report, table, times_nginx
from bench.scenarios import SCENARIOS


def run(*, worker_us: float = 30.0, tree_us: float = 40.0, chunks_per_s: float = 30_500.0, others_share: float = 0.01) -> dict:
    times = {"mean": 1000.0, "p50": 1000, "p99": 2000}
    return {
        "worker_us": worker_us,
        "tree_us": tree_us,
        "chunks_per_s": chunks_per_s,
        "per_s": 20_000.0,
        "others_share": others_share,
        "ttfb": times,
        "total": times,
        "transit": times,
    }


def results(gateway: dict, load: str = "plain", facts: dict | None = None) -> dict:
    machine = {"cpu": "a CPU", "memory": "1 GB", "kernel": "Linux 6", "python": "CPython 3.11", "nginx": "1.22"}
    loads = {load: {"nginx": [run(tree_us=10.0)], "gateway": [gateway]}}
    return {"taken_at": "2026-01-01", "commit": "abc", "repetitions": 1, "machine": machine, "loads": loads, "facts": facts or {}}


def test_median_is_of_the_named_number_in_each_run():
    assert median([{"total": {"p50": value}} for value in (9, 1, 5)], "total.p50") == 5


def test_times_nginx_is_the_ratio_of_medians():
    load = {"nginx": [run(tree_us=value) for value in (10.0, 99.0, 9.0)], "gateway": [run(tree_us=value) for value in (35.0, 1.0, 90.0)]}
    assert times_nginx(load, "tree_us") == 3.5


def test_a_target_just_met_is_not_missed():
    assert missed(results(run(worker_us=30.0, tree_us=40.0))) == []


@pytest.mark.parametrize(("column", "gateway"), [("worker", run(worker_us=30.1)), ("tree", run(tree_us=40.1))])
def test_cpu_over_its_multiple_of_nginx_is_missed(column, gateway):
    (miss,) = missed(results(gateway))
    assert f"CPU of the {column}" in miss


def test_a_rate_that_is_not_held_is_missed():
    (miss,) = missed(results(run(tree_us=20.0, chunks_per_s=29_000.0), load="paced_300"))
    assert "29,000 chunks/s" in miss


def test_a_fact_over_its_limit_is_missed_and_one_that_was_not_measured_is_not():
    (miss,) = missed(results(run(), facts={"idle_worker_mib": 61.0, "idle_tree_mib": 180.0}))
    assert miss == "worker RSS, idle: 61.00 MiB, target 60"


def test_report_shows_every_measured_load_and_fact_and_its_misses_first():
    page = report(results(run(worker_us=55.0), facts={fact.key: 1.0 for fact in FACTS}))
    assert page.index("Missed:") < page.index("## CPU")
    assert "55.00 (5.50 ×, ≤ 3)" in page
    assert all(fact.title in page for fact in FACTS)


def test_a_disturbed_run_is_marked():
    assert "**disturbed**" in report(results(run(others_share=0.5)))
    assert "**disturbed**" not in report(results(run()))


def test_every_target_names_a_load_that_is_measured():
    assert {name for name, _ in MOST_TIMES_NGINX} <= {scenario.name for scenario in SCENARIOS}


def test_table_is_markdown():
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n"
