"""A real gateway in front of the simulated provider under four names, one for each format that it speaks."""

from __future__ import annotations

import json
import re
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Gateway, environment, start_gateway

# The vendors' own names where a row of theirs speaks the format, so that its quirks count.
PROVIDERS = {"openai-chat": "openai", "openai-responses": "responses", "anthropic-messages": "anthropic", "gemini": "google"}
CONFIG = """
[routing]
max_attempts = 1
[providers.openai]
base_url = "{url}/v1"
api_key = "sk-sim"
unpriced = "allow"
[providers.responses]
dialect = "openai-responses"
base_url = "{url}/v1"
unpriced = "allow"
[providers.anthropic]
base_url = "{url}/v1"
api_key = "sk-sim"
unpriced = "allow"
[models."responses/tools-2+reasoning-12"]
is_reasoning = true
[models."responses/reasoning-12"]
is_reasoning = true
[providers.google]
base_url = "{url}/v1beta"
api_key = "sk-sim"
unpriced = "allow"
"""


class Served:
    def __init__(self, gateway: Gateway, sim_url: str):
        self.gateway = gateway
        self._sim_url = sim_url

    def provider_saw(self) -> int:
        """How many requests of models reached the provider so far."""
        with urllib.request.urlopen(f"{self._sim_url}/sim/attempts", timeout=20) as reply:
            return len(json.load(reply)["attempts"])

    def attempt(self, call_id: str) -> dict[str, Any]:
        """The ledger's row of a call with one attempt. Asking for usage ships what has settled."""
        self.gateway.request("GET", "/v1/usage/recent?limit=1")
        with closing(sqlite3.connect(f"file:{self.gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return dict(database.execute("SELECT * FROM attempts WHERE call_id = ?", (call_id,)).fetchone())


@contextmanager
def serve_four_formats(folder: Path) -> Iterator[Served]:
    command = [sys.executable, "-m", "aigate.sim", "--port", "0"]
    sim = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
    assert sim.stdout is not None
    url = re.sub(r"/v1$", "", sim.stdout.readline().split()[-1])
    running = start_gateway(folder, CONFIG.format(url=url))
    try:
        yield Served(running, url)
    finally:
        running.kill()
        sim.terminate()
        sim.wait(20)
        sim.stdout.close()
