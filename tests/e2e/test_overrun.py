"""A provider that bills more than it was allowed to: charged in full, told of, and held at more from then on."""

from __future__ import annotations

import json

from aigate.cli.verify import verify_data_dir
from tests.conftest import start_gateway
from tests.e2e.test_budgets import new_customer, window
from tests.e2e.test_own_keys import provider  # noqa: F401  a fixture is used by its name
from tests.e2e.wire import chat, provider_config, rows, shipped

COST_NANOUSD = 1_000 * 150 + 500 * 600  # of the usage that the provider reports whatever it was asked


def test_an_overrun_is_charged_told_and_raises_the_bound(tmp_path, provider):  # noqa: F811
    gateway = start_gateway(tmp_path, "[server]\nworkers = 1\n" + provider_config("mock", provider, ("chatty",), 'api_key = "none"'))
    try:
        key = new_customer(gateway, 100)
        attempts = []
        for _ in range(2):
            status, headers, _ = gateway.request("POST", "/v1/chat/completions", chat("mock/chatty", max_tokens=10), key=key)
            assert status == 200
            attempts += shipped(gateway, headers["x-request-id"])[1]
        first, second = attempts
        assert first["hold_nanousd"] < first["cost_nanousd"] == COST_NANOUSD == second["cost_nanousd"] <= second["hold_nanousd"]
        (event,) = rows(gateway.data_dir, "outbox", "type = 'budget.overrun'")
        assert json.loads(event["payload"])["attempt_id"] == first["attempt_id"]
        assert gateway.stop() == 0
        row = window(gateway.data_dir)
        assert (row["spent_nanousd"], row["reserved_nanousd"], row["leased_nanousd"]) == (2 * COST_NANOUSD, 0, 0)
        report = verify_data_dir(str(gateway.data_dir))
        assert report.is_sound and report.counts["overrun"] == 1
    finally:
        if gateway.process.poll() is None:
            gateway.kill()
